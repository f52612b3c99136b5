"""Case studies as one self-contained HTML page: images embedded, sorting in plain JavaScript, readable on a phone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from PIL import Image, ImageDraw

from cocoer.names import LEVELS
from cocoer.outputs import CaseStudy
from cocoer.report import canvas as ink
from cocoer.report.person_html import (
    STYLE,
    answer_list,
    data_uri,
    exclusion_chain,
    label_list,
    level_table,
    synthetic_band,
)

_SIDE = 480
_KEYS = {"loss": "loss", "conflict": "conflict", "excluded": "first excluded", "error": "wrong labels"}

_STYLE = """
:root { --ink: #1a1d21; --grey: #5f666e; --rule: #d6dadf; }
* { box-sizing: border-box; }
body { margin: 0; font: 16px/1.45 system-ui, sans-serif; color: var(--ink); background: #f4f5f7; }
header { padding: 16px; background: #fff; border-bottom: 1px solid var(--rule); }
h1 { font-size: 1.3rem; margin: 0 0 4px; } header p { margin: 4px 0; color: var(--grey); } header sub { line-height: 0; }
.controls { position: sticky; top: 0; z-index: 1; display: flex; align-items: center; flex-wrap: wrap;
  gap: 8px 16px; padding: 10px 16px; background: #fff; border-bottom: 1px solid var(--rule); }
.controls label { display: flex; align-items: center; gap: 6px; min-width: 0; } .controls select { flex: 1; min-width: 0; }
select, button { font: inherit; min-height: 40px; padding: 4px 10px; border: 1px solid #9aa1a9; border-radius: 6px;
  background: #fff; color: inherit; }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 340px), 1fr)); gap: 16px; padding: 16px; }
article { background: #fff; border: 1px solid var(--rule); border-radius: 8px; padding: 12px; overflow-wrap: anywhere; }
article[hidden] { display: none; }
article img { display: block; max-width: 100%; max-height: 320px; margin: 0 auto 8px; }
h2 { font-size: .95rem; margin: 0 0 8px; }
@media (max-width: 560px) {
  .controls { display: grid; grid-template-columns: minmax(0, 1fr) auto; gap: 6px 8px; padding: 6px 12px; font-size: .9rem; }
  .controls select { padding: 4px; }
  main { padding: 12px; } header { padding: 12px; }
}
"""

_SCRIPT = """
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
"""


def image_uri(image: Image.Image, case: CaseStudy) -> str:
    """The image, reduced, with the person's two boxes, as a data URI (JPEG)."""
    shown = image.convert("RGB")
    if max(shown.size) > _SIDE:
        shown = ink.fit_inside(shown, _SIDE, _SIDE)
    boxes = case.person.boxes
    if boxes is not None:
        draw = ImageDraw.Draw(shown, "RGBA")
        scale = (
            shown.width / (case.result.width or image.width),
            shown.height / (case.result.height or image.height),
        ) * 2
        for box, colour in ((boxes.body, ink.BODY_GREEN), (boxes.head, ink.HEAD_YELLOW)):
            ink.outline(draw, [v * s for v, s in zip(box, scale, strict=True)], colour, 2)
    return data_uri(shown)


def _truth(case: CaseStudy) -> str:
    """The ground truth; what the answer lacks is marked."""
    said = case.person.labels.get("pred", ())
    return label_list([escape(n) if n in said else f'<span class="none">{escape(n)}</span>' for n in case.truth])


def _name(key: str) -> str:
    """A key that may be broken after the separators of paths, not in the middle of a word."""
    return escape(key).replace("/", "/<wbr>").replace("_", "_<wbr>").replace("#", "<wbr>#")


def _card(case: CaseStudy, image: Image.Image, place: int) -> str:
    """One person as an article with its sort keys as data attributes."""
    person, first = case.person, case.first_excluded
    excluded = -1 if first is None else LEVELS.index(first)
    remark = f'<p class="facts">{escape(case.remark)}</p>' if case.remark and person.status != "error" else ""
    data = f'data-place="{place}" data-loss="{case.loss:.6f}" data-conflict="{case.conflict:.6f}" data-error="{case.error}"'
    if person.status == "error":
        inside = f'<p class="error">not scored: {escape(person.message)}</p>'
    else:
        inside = (
            f'<div class="pair"><div><h3>Ground truth</h3>{_truth(case)}</div>'
            f"<div><h3>Prediction</h3>{answer_list(person, case.truth)}</div></div>"
            f"{level_table(person)}{exclusion_chain(person)}"
            f'<p class="facts">loss {case.loss:.3f}, conflict {case.conflict:.3f}, wrong labels {case.error}</p>{remark}'
        )
    return (
        f'<article class="person" {data} data-excluded="{excluded}"><h2>{_name(case.key)}</h2>'
        f'<img src="{image_uri(image, case)}" alt="person {person.person} of {escape(case.result.image)}">{inside}</article>'
    )


def case_page(cases: Iterable[tuple[CaseStudy, Image.Image]], title: str, remarks: Sequence[str] = ()) -> str:
    """The whole page as text: no link leads out of it, everything that was read from files is escaped.

    cases: in the order in which they first appear. remarks: lines below the title, such as what the model is.
    Raises ValueError without a case.
    """
    synthetic = False
    cards = []
    for place, (case, image) in enumerate(cases):
        synthetic |= case.result.synthetic
        cards.append(_card(case, image, place))
    if not cards:
        raise ValueError("case page: wanted at least one person, got none")
    keys = "".join(f'<option value="{k}">{escape(v)}</option>' for k, v in _KEYS.items())
    levels = "".join(f'<option value="{i}">{level} first</option>' for i, level in enumerate(LEVELS))
    notes = "".join(f"<p>{escape(line)}</p>" for line in remarks)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title><style>{_STYLE}{STYLE}</style></head>
<body><header><h1>{escape(title)}</h1>{synthetic_band(synthetic)}{notes}
<p>Struck out: what a level says and the answer does not share.
Bold: right. Orange: wrong. Grey: missed. L<sub>hier</sub>: a level's loss against the pseudo label.</p></header>
<div class="controls"><label>sort by <select id="key"><option value="index">index order</option>{keys}</select></label>
<button id="turn" type="button">largest first</button>
<label>excluded <select id="only"><option value="">any level</option>{levels}</select></label>
<span>showing <output id="shown">{len(cards)} of {len(cards)}</output></span></div>
<main>{"".join(cards)}</main><script>{_SCRIPT}</script></body></html>
"""
