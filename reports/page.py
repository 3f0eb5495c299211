"""Pages: one HTML file each that loads nothing, runs no script and shows text as text."""

from __future__ import annotations

from typing import Any

from . import numbers
from .figures import part
from .palette import DARK, LIGHT, css_variables


def render(template: str, **values: Any) -> bytes:
    """The HTML of a template. The same values give the same bytes."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("fovcache.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(numbers=numbers, part=part, light=css_variables(LIGHT), dark=css_variables(DARK))
    html = environment.get_template(template).render(**values)
    return html.encode("utf-8", "replace")  # lone surrogates, of odd file names
