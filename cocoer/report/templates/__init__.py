"""HTML pages from the Jinja2 templates beside this file; what is put in is escaped unless it is marked as HTML."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("cocoer.report", "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip


def render(template: str, **values: object) -> Markup:
    """The template of this name with values put in: escaped text, safe to be put into another page as it is."""
    return Markup(_environment().get_template(template).render(**values))
