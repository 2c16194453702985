"""Rendering of the templates in `templates/`.

Each HTML page is one self-contained file that makes no request. Templates named `*.html.j2` escape all text, and the
pages' content-security policy forbids requests and all scripts but the page's own, which it names by its digest. A
page shows everything without its script, too.
"""

import base64
import hashlib
from collections.abc import Callable
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from hand1000.core.tables import Bold, escape_markdown
from hand1000.reports.figures import curve_svg, hand_svg
from hand1000.reports.gate_table import format_gate_interval
from hand1000.reports.images import data_uri, image_uri
from hand1000.reports.plots import interval_svg, landmarks_svg, mark_svg


def render_template(name: str, **context: Any) -> str:
    """Render the template `name` of the folder `templates/`.

    Raises:
        Hand1000Error: An image is missing or unreadable.
    """
    return _environment().get_template(name).render(context)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("hand1000.reports"),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    filters: dict[str, Callable[..., Any]] = {
        "curve_uri": lambda curve: data_uri("svg+xml", curve_svg(curve).encode()),
        "duration": _format_duration,
        "gate_interval": format_gate_interval,
        "hand_svg": hand_svg,
        "image_uri": image_uri,
        "interval_svg": interval_svg,
        "landmarks_svg": landmarks_svg,
        "mark_svg": mark_svg,
        "markdown": escape_markdown,
        "number": _format_number,
        "signed": lambda value: f"{value:+.3g}".replace("-", "−"),
        "png_uri": lambda data: data_uri("png", data),
    }
    environment.filters.update(filters)
    environment.globals |= {"read_script": _read_script, "script_source": _script_source}
    environment.tests["difference"] = lambda text: "Δ" in text
    environment.tests["bold"] = lambda cell: isinstance(cell, Bold)
    return environment


def _read_script(name: str) -> Markup:
    """The text of a script of the folder `templates/`, which is ours and needs no escaping."""
    loader = _environment().loader
    assert loader is not None
    return Markup(loader.get_source(_environment(), name)[0])


def _script_source(name: str) -> str:
    """What a content-security policy calls a script: its digest."""
    digest = hashlib.sha256(_read_script(name).encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _format_number(value: float | None, digits: int = 4) -> str:
    """Significant digits; a dash for a missing value."""
    return "–" if value is None else f"{value:.{digits}g}"


def _format_duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
