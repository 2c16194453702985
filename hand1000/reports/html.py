"""What all pages are made of: each is one HTML file that holds all it shows, asks nothing of any server and runs no
script.

Text from outside must pass through `escape`; the page's own policy forbids scripts and requests besides.
"""

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from hand1000.core.errors import Hand1000Error

_STYLE = Path(__file__).with_name("report.css")
_LARGEST_PNG, _LARGEST_SIDE, _JPEG_QUALITY = 128, 512, 88
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def page(title: str, sections: Sequence[str]) -> str:
    """The whole page; `title` is text, `sections` are HTML."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>\n{_STYLE.read_text()}</style></head>\n"
        f"<body>\n{chr(10).join(sections)}\n</body></html>\n"
    )


def section(title: str, body: str) -> str:
    """A part of the page; `body` is HTML."""
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def facts(rows: Iterable[tuple[str, object]]) -> str:
    """Names beside what they are."""
    cells = "".join(f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>" for name, value in rows)
    return f'<table class="facts">{cells}</table>'


def image(path: Path, alt: str) -> str:
    """The picture within the page: small ones as they are, large ones as JPEG, or a page of SD pictures is huge."""
    from PIL import Image

    buffer = io.BytesIO()
    try:
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
    except (OSError, Image.DecompressionBombError) as error:
        raise Hand1000Error(f"{path}: no readable picture: {error}") from error
    if max(picture.size) <= _LARGEST_PNG:
        kind = "png"
        picture.save(buffer, "PNG", optimize=True)
    else:
        kind = "jpeg"
        picture.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE))
        picture.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<img src="data:image/{kind};base64,{data}" alt="{escape(alt)}">'
