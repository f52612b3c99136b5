"""One person's answer as a piece of HTML: labels, levels, competition. The case-study page and app.py are made of it.

`STYLE` is scoped to the class `person`, so that it can stand in a page of any other style. Everything that came from a file is
escaped. Colours have enough contrast on white, and on dark ground below an element of class `dark`.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape

from PIL import Image

from cocoer.names import LEVELS
from cocoer.outputs import LEVEL_SOURCES, SYNTHETIC, PersonPrediction
from cocoer.report.figure import number_rows

MOST_LABELS = 12

STYLE = """
.person { --head: #8a6700; --body: #1a7e36; --context: #266ebe; --wrong: #a24b00; --soft: #5f666e; --line: #d6dadf; }
.dark .person { --head: #f0c040; --body: #58c978; --context: #7db5f5; --wrong: #ff9a4d; --soft: #a8b0ba; --line: #4a5058; }
.person { overflow-wrap: anywhere; }
.person h3 { font-size: .85rem; font-weight: 600; margin: 0; color: var(--soft); }
.person .pair { display: grid; grid-template-columns: 1fr 1fr; gap: 8px; margin-bottom: 8px; }
.person ul { margin: 0; padding: 0; list-style: none; } .person li { margin: 0; }
.person .none { color: var(--soft); font-style: italic; }
.person .wrong, .person del { color: var(--wrong); } .person .right { font-weight: 600; }
.person table { width: 100%; border-collapse: collapse; font-size: .88rem; margin: 0 0 8px; }
.person td, .person th { text-align: left; vertical-align: baseline; padding: 3px 6px 3px 0;
  border: 0 solid var(--line); border-top-width: 1px; }
.person th { overflow-wrap: normal; } .person th[scope=row] { white-space: nowrap; }
.person td.number, .person th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.person sub { line-height: 0; }
.person .head { color: var(--head); } .person .body { color: var(--body); } .person .context { color: var(--context); }
.person .sequence { margin: 8px 0 0; font-size: .9rem; }
.person .facts { margin: 4px 0 8px; font-size: .85rem; color: var(--soft); }
.person .error { color: #b3261e; font-weight: 600; } .dark .person .error { color: #ff8a80; }
.person .synthetic, .synthetic { background: #ffb000; color: #1a1d21; font-weight: 600; padding: 8px 12px; margin: 0 0 8px; }
.person .maps { margin: 12px 0 16px; } .person .maps h3 { margin: 0 0 4px; }
.person .row { display: flex; flex-wrap: wrap; gap: 8px; }
.person figure { margin: 0; flex: 1 1 140px; max-width: 240px; }
.person figure img { display: block; width: 100%; border-radius: 4px; }
.person figcaption { font-size: .8rem; color: var(--soft); }
"""


def synthetic_band(synthetic: bool) -> str:
    """A paragraph that says `outputs.SYNTHETIC`; empty where the answer is not of synthetic weights."""
    return f'<p class="synthetic" role="note">{escape(SYNTHETIC)}</p>' if synthetic else ""


def data_uri(image: Image.Image) -> str:
    """An image as a data URI (JPEG)."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def image_in_html(image: Image.Image, text: str) -> str:
    """A drawing with fine lines (PNG) inside the page. text: what is said in its place to those who do not see it."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    code = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<div tabindex="0"><img src="data:image/png;base64,{code}" alt="{escape(text)}"></div>'


def label_list(rows: Sequence[str], empty: str = "none") -> str:
    """Labels (HTML) one below the other, the first `MOST_LABELS` of them."""
    shown = [f"<li>{row}</li>" for row in rows[:MOST_LABELS]]
    if len(rows) > MOST_LABELS:
        shown.append(f"<li>+{len(rows) - MOST_LABELS} more</li>")
    return "<ul>" + ("".join(shown) or f'<li class="none">{empty}</li>') + "</ul>"


def answer_list(person: PersonPrediction, truth: Sequence[str] | None = None) -> str:
    """The fused labels with probabilities, the most probable first; with a truth right ones are bold and wrong ones marked.

    An answer without a label names the most probable class, which stays below its threshold.
    """
    by_name = person.probabilities.get("pred", {})
    rows = []
    for name in sorted(person.labels.get("pred", ()), key=lambda n: -by_name.get(n, 0.0)):
        kind = "right" if truth is None or name in truth else "wrong"
        rows.append(f'<span class="{kind}">{escape(name)}</span> {by_name.get(name, 0.0):.2f}')
    top = max(by_name, key=lambda n: by_name[n], default="")
    return label_list(rows, f"none; highest: {escape(top)} {by_name[top]:.2f}" if top else "none")


def level_table(person: PersonPrediction) -> str:
    """One row per level: its labels, those that the answer does not share struck out, and L_hier."""
    rows = []
    for i, level in enumerate(LEVELS):
        source = LEVEL_SOURCES[level]
        struck, by_name = person.inconsistent.get(source, ()), person.probabilities.get(source, {})
        names = sorted(person.labels.get(source, ()), key=lambda n: -by_name.get(n, 0.0))
        said = [f"<del>{escape(n)}</del>" if n in struck else escape(n) for n in names[:MOST_LABELS]]
        if len(names) > MOST_LABELS:
            said.append(f"+{len(names) - MOST_LABELS} more")
        loss = f"{person.competition.losses[i]:.3f}" if person.competition else "-"
        rows.append(
            f'<tr><th scope="row" class="{level}">{level}</th><td>{", ".join(said) or "none"}</td>'
            f'<td class="number">{loss}</td></tr>'
        )
    head = '<tr><th scope="col">level</th><th scope="col">says</th><th scope="col" class="number">L<sub>hier</sub></th></tr>'
    return f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"


def weights_table(person: PersonPrediction) -> str:
    """The simplex weights (lambda) of each round, a column per level; empty where nothing competed."""
    rows = [
        f'<tr><th scope="row">{escape(title)}</th>{"".join(f"<td class=number>{text}</td>" for text in texts)}</tr>'
        for title, texts, _ in number_rows(person)[1:]
    ]
    if not rows:
        return ""
    head = "".join(f'<th scope="col" class="number {level}">{level}</th>' for level in LEVELS)
    return f"<table><thead><tr><td></td>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def exclusion_chain(person: PersonPrediction) -> str:
    """The levels in the order in which they left, the survivor last."""
    record = person.competition
    chain = " &rarr; ".join(f'<span class="{n}">{n}</span>' for n in (record.exclusion if record else ()))
    return f'<p class="sequence">Excluded: {chain + " (stays)" if chain else "nothing competed"}</p>'


def person_block(person: PersonPrediction) -> str:
    """Everything that is known of a person without ground truth, or why it was not scored."""
    if person.status == "error":
        return f'<div class="person"><p class="error">not scored: {escape(person.message)}</p></div>'
    said = {
        "no_face_estimated": "No face was found: the head box is estimated.",
        "equal_readings": f"{person.message}.",
    }
    remark = f'<p class="facts">{escape(said[person.status])}</p>' if person.status in said else ""
    vocabulary = label_list([escape(n) for n in person.labels.get("VI", ())])
    pseudo = escape(", ".join(person.pseudo_label)) or "none"
    return (
        f'<div class="person">{synthetic_band(person.synthetic)}<div class="pair">'
        f"<div><h3>Prediction</h3>{answer_list(person)}</div>"
        f"<div><h3>V-I branch</h3>{vocabulary}</div></div>{level_table(person)}{exclusion_chain(person)}"
        f'<p class="facts">Pseudo label: {pseudo}</p>{weights_table(person)}{remark}</div>'
    )


def map_rows(rows: Mapping[str, Sequence[tuple[Image.Image, str]]]) -> str:
    """Rows of captioned images (`saliency.saliency_rows`, `saliency.attention_rows`) that wrap on a narrow screen."""
    out = []
    for title, cells in rows.items():
        figures = "".join(
            f'<figure><img src="{data_uri(image)}" alt="{escape(title)}: {escape(caption)}">'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
            for image, caption in cells
        )
        out.append(f'<section class="maps"><h3>{escape(title)}</h3><div class="row">{figures}</div></section>')
    return f'<div class="person">{"".join(out)}</div>'
