"""Results in a notebook: a pandas table, and a cell that shows the drawing with the most probable emotions."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from PIL import Image

from cocoer.errors import MissingExtra
from cocoer.outputs import ImageResult, PersonPrediction
from cocoer.report.canvas import data_uri
from cocoer.report.people_table import table_columns, table_line

if TYPE_CHECKING:
    from pandas import DataFrame

_WIDEST = 900
"""Pixels across that a cell's drawing has at most."""


def people_frame(results: Sequence[ImageResult]) -> DataFrame:
    """One row per person, the columns of results.csv; images without persons have none. Raises MissingExtra without pandas."""
    try:
        import pandas
    except ImportError as err:
        raise MissingExtra("table", err) from None
    lines = [table_line(result.to_dict(), p.to_dict()) for result in results for p in result.persons]
    scored = (p.probabilities["pred"] for result in results for p in result.persons if p.probabilities)
    return pandas.DataFrame(lines, columns=table_columns(list(next(scored, ()))))


def image_in_html(image: Image.Image, text: str) -> str:
    """A drawing with fine lines (PNG) inside the page. text: its alternative text."""
    return f'<div tabindex="0"><img src="{data_uri(image, "PNG", optimize=True)}" alt="{escape(text)}"></div>'


def people_html(drawing: Image.Image | None, result: ImageResult) -> str:
    """A fragment that needs nothing from outside: the drawing, then a row a person.

    drawing: as `draw.draw_result` gives it, None for an image that could not be read.
    """
    if drawing is None:
        return f"<p>{escape(result.message)}</p>"
    drawing.thumbnail((_WIDEST, 4 * _WIDEST))
    rows = "".join(_row(person) for person in result.persons)
    heads = "<tr><th>person</th><th>emotions</th><th>most probable</th></tr>"
    table = f'<table style="border-spacing: 1em 0.2em; text-align: left">{heads}{rows}</table>'
    return image_in_html(drawing, f"people of {result.image}") + (table if rows else "<p>no people</p>")


def _row(person: PersonPrediction) -> str:
    if person.status == "error":
        return f'<tr><td>{person.person}</td><td colspan="2">{escape(person.message)}</td></tr>'
    likely = ", ".join(f"{escape(name)} {100 * p:.0f} %" for name, p in person.top(3))
    named = escape(", ".join(person.emotions)) or "none"
    return f"<tr><td>{person.person}</td><td>{named}</td><td>{likely}</td></tr>"
