const list = document.querySelector('main'), key = document.getElementById('key'), turn = document.getElementById('turn');
const only = document.getElementById('only'), shown = document.getElementById('shown');
const cards = [...list.querySelectorAll('article')];
let falling = true;
function arrange() {
  const k = key.value;
  const order = (a, b) => (falling ? -1 : 1) * (Number(a.dataset[k]) - Number(b.dataset[k])) || a.dataset.place - b.dataset.place;
  const sorted = k === 'index' ? [...cards] : [...cards].sort(order);
  if (k === 'index' && !falling) sorted.reverse();
  list.append(...sorted);
  let count = 0;
  for (const card of cards) {
    card.hidden = only.value !== '' && card.dataset.excluded !== only.value;
    count += card.hidden ? 0 : 1;
  }
  shown.textContent = count + ' of ' + cards.length;
}
key.addEventListener('change', arrange);
only.addEventListener('change', arrange);
turn.addEventListener('click', () => {
  falling = !falling;
  turn.textContent = falling ? 'largest first' : 'smallest first';
  arrange();
});
arrange();
