"""Rendering of the templates in `templates/`.

Each HTML page is one self-contained file without scripts. Templates named `*.html.j2` escape all text, and the pages'
content-security policy forbids scripts and requests to any server.
"""

import base64
import io
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from hand1000.core.errors import Hand1000Error
from hand1000.core.tables import Bold, escape_markdown
from hand1000.reports.figures import curve_svg, hand_svg

_MAX_PNG_SIDE = 128
"""Side in pixels up to which images are embedded as lossless PNG."""
_MAX_SIDE, _JPEG_QUALITY = 512, 88
"""Larger images are embedded as JPEG of at most this side, to limit the size of the page."""


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
        "curve_uri": lambda curve: _data_uri("svg+xml", curve_svg(curve).encode()),
        "duration": _format_duration,
        "hand_svg": hand_svg,
        "image_uri": _image_uri,
        "markdown": escape_markdown,
        "png_uri": lambda data: _data_uri("png", data),
    }
    environment.filters.update(filters)
    environment.tests["bold"] = lambda cell: isinstance(cell, Bold)
    return environment


def _image_uri(path: Path, max_side: int = _MAX_SIDE) -> str:
    """The image as a `data:` URI."""
    from PIL import Image

    buffer = io.BytesIO()
    try:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
    except (OSError, Image.DecompressionBombError) as error:
        raise Hand1000Error(f"{path}: not a readable image: {error}") from error
    if max(image.size) <= _MAX_PNG_SIDE:
        image.save(buffer, "PNG", optimize=True)
        return _data_uri("png", buffer.getvalue())
    image.thumbnail((max_side, max_side))
    image.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return _data_uri("jpeg", buffer.getvalue())


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _format_duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
