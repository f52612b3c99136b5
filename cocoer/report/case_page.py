"""Case studies as one self-contained HTML page: pictures embedded, sorting in plain JavaScript, readable on a phone."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape

from PIL import Image, ImageDraw

from cocoer.names import LEVELS
from cocoer.outputs import LEVEL_SOURCES, CaseStudy
from cocoer.report import canvas as ink

_SIDE = 480
_MOST_LABELS = 12
_KEYS = {"loss": "loss", "conflict": "conflict of levels", "excluded": "level excluded first", "error": "wrong labels"}

_STYLE = """
:root { --head: #8a6700; --body: #1a7e36; --context: #266ebe; --ink: #1a1d21; --grey: #5f666e; --rule: #d6dadf; }
* { box-sizing: border-box; }
body { margin: 0; font: 16px/1.45 system-ui, sans-serif; color: var(--ink); background: #f4f5f7; }
header { padding: 16px; background: #fff; border-bottom: 1px solid var(--rule); }
h1 { font-size: 1.3rem; margin: 0 0 4px; } header p { margin: 4px 0; color: var(--grey); }
.controls { position: sticky; top: 0; z-index: 1; display: flex; align-items: center; flex-wrap: wrap;
  gap: 8px 16px; padding: 10px 16px; background: #fff; border-bottom: 1px solid var(--rule); }
select, button { font: inherit; min-height: 40px; padding: 4px 10px; border: 1px solid #9aa1a9; border-radius: 6px;
  background: #fff; }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 340px), 1fr)); gap: 16px; padding: 16px; }
article { background: #fff; border: 1px solid var(--rule); border-radius: 8px; padding: 12px; overflow-wrap: anywhere; }
article[hidden] { display: none; }
article img { display: block; max-width: 100%; max-height: 320px; margin: 0 auto 8px; }
h2 { font-size: .95rem; margin: 0 0 8px; } h3 { font-size: .85rem; margin: 0; color: var(--grey); }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 8px; margin-bottom: 8px; }
ul { margin: 0; padding: 0; list-style: none; } .missed { color: var(--grey); font-style: italic; }
.wrong, del { color: #a24b00; } .right { font-weight: 600; }
table { width: 100%; border-collapse: collapse; font-size: .88rem; }
th[scope=row] { white-space: nowrap; overflow-wrap: normal; } th { overflow-wrap: normal; }
td, th { text-align: left; vertical-align: top; padding: 3px 6px 3px 0; border-top: 1px solid var(--rule); }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.head { color: var(--head); } .body { color: var(--body); } .context { color: var(--context); }
.sequence { margin: 8px 0 0; font-size: .9rem; } .facts { margin: 4px 0 0; font-size: .85rem; color: var(--grey); }
.error { color: #b3261e; font-weight: 600; }
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


def picture_uri(image: Image.Image, case: CaseStudy) -> str:
    """The picture, reduced, with the person's two boxes, as a data URI (JPEG)."""
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
    buffer = io.BytesIO()
    shown.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _items(names: Sequence[str], tag: str = "{}", empty: str = "none") -> str:
    rows = [f"<li>{tag.format(escape(name))}</li>" for name in names[:_MOST_LABELS]]
    if len(names) > _MOST_LABELS:
        rows.append(f"<li>+{len(names) - _MOST_LABELS} more</li>")
    return "<ul>" + ("".join(rows) or f'<li class="missed">{empty}</li>') + "</ul>"


def _answer(case: CaseStudy) -> str:
    """The fused labels with probabilities: right ones bold, wrong ones marked."""
    by_name = case.person.probabilities.get("pred", {})
    rows = []
    for name in sorted(case.person.labels.get("pred", ()), key=lambda n: -by_name.get(n, 0.0)):
        kind = "right" if name in case.truth else "wrong"
        rows.append(f'<span class="{kind}">{escape(name)}</span> {by_name.get(name, 0.0):.2f}')
    items = "".join(f"<li>{row}</li>" for row in rows[:_MOST_LABELS])
    return f"<ul>{items or '<li class=missed>none</li>'}</ul>"


def _levels(case: CaseStudy) -> str:
    """One row per level: L_hier and labels, those that the answer does not share struck out."""
    person, rows = case.person, []
    for i, level in enumerate(LEVELS):
        source = LEVEL_SOURCES[level]
        struck, by_name = person.inconsistent.get(source, ()), person.probabilities.get(source, {})
        names = sorted(person.labels.get(source, ()), key=lambda n: -by_name.get(n, 0.0))
        said = [f"<del>{escape(n)}</del>" if n in struck else escape(n) for n in names[:_MOST_LABELS]]
        if len(names) > _MOST_LABELS:
            said.append(f"+{len(names) - _MOST_LABELS} more")
        loss = f"{person.competition.losses[i]:.3f}" if person.competition else "-"
        rows.append(
            f'<tr><th scope="row" class="{level}">{level}</th><td>{", ".join(said) or "none"}</td>'
            f'<td class="number">{loss}</td></tr>'
        )
    head = '<tr><th scope="col">level</th><th scope="col">says</th><th scope="col">L<sub>hier</sub></th></tr>'
    return f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"


def _card(case: CaseStudy, image: Image.Image, place: int) -> str:
    """One person as an article with its sort keys as data attributes."""
    person, first = case.person, case.first_excluded
    excluded = -1 if first is None else LEVELS.index(first)
    chain = " &rarr; ".join(
        f'<span class="{n}">{n}</span>' for n in (person.competition.exclusion if person.competition else ())
    )
    remark = f'<p class="facts">{escape(case.remark)}</p>' if case.remark and person.status != "error" else ""
    data = f'data-place="{place}" data-loss="{case.loss:.6f}" data-conflict="{case.conflict:.6f}" data-error="{case.error}"'
    if person.status == "error":
        inside = f'<p class="error">not scored: {escape(person.message)}</p>'
    else:
        inside = (
            f'<div class="pair"><div><h3>Ground truth</h3>{_items(case.truth)}</div>'
            f"<div><h3>Prediction</h3>{_answer(case)}</div></div>{_levels(case)}"
            f'<p class="sequence">Excluded: {chain + " (stays)" if chain else "nothing competed"}</p>'
            f'<p class="facts">loss {case.loss:.3f}, conflict {case.conflict:.3f}, wrong labels {case.error}</p>{remark}'
        )
    return (
        f'<article {data} data-excluded="{excluded}"><h2>{escape(case.key)}</h2>'
        f'<img src="{picture_uri(image, case)}" alt="person {person.person} of {escape(case.result.image)}">{inside}</article>'
    )


def case_page(cases: Iterable[tuple[CaseStudy, Image.Image]], title: str, remarks: Sequence[str] = ()) -> str:
    """The whole page as text: no link leads out of it, everything that was read from files is escaped.

    cases: in the order in which they first appear. remarks: lines below the title, such as what the model is.
    Raises ValueError without a case.
    """
    cards = [_card(case, image, place) for place, (case, image) in enumerate(cases)]
    if not cards:
        raise ValueError("case page: wanted at least one person, got none")
    keys = "".join(f'<option value="{k}">{escape(v)}</option>' for k, v in _KEYS.items())
    levels = "".join(f'<option value="{i}">{level} first</option>' for i, level in enumerate(LEVELS))
    notes = "".join(f"<p>{escape(line)}</p>" for line in remarks)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title><style>{_STYLE}</style></head>
<body><header><h1>{escape(title)}</h1>{notes}<p>Struck out: what a level says and the answer does not share.
Bold: right. Orange: wrong. L<sub>hier</sub>: a level's loss against the pseudo label.</p></header>
<div class="controls"><label>sort by <select id="key"><option value="index">order of the index</option>{keys}</select></label>
<button id="turn" type="button">largest first</button>
<label>excluded <select id="only"><option value="">any level</option>{levels}</select></label>
<span>showing <output id="shown">{len(cards)} of {len(cards)}</output></span></div>
<main>{"".join(cards)}</main><script>{_SCRIPT}</script></body></html>
"""
