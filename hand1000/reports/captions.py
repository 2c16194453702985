"""A page of images with what each captioner wrote of them: self-contained HTML for a person to look at."""

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

from hand1000.captions.metrics import CaptionMetrics, quality_rows
from hand1000.captions.records import CaptionRecord

_STYLE = (
    "body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}"
    ".wide{overflow-x:auto;margin-bottom:2rem}table{border-collapse:collapse}"
    "th,td{padding:.3rem .8rem;text-align:right;border-bottom:1px solid #ccc}"
    "th:first-child,td:first-child{text-align:left;padding-left:0}"
    "article{display:flex;gap:1rem;border-top:1px solid #ccc;padding:.8rem 0}"
    "img{width:9rem;height:9rem;object-fit:cover;flex:none}dl{margin:0}dt{color:#555;font-size:85%}dd{margin:0 0 .5rem}"
)


def render_captions_page(
    gesture: str, qualities: Sequence[CaptionMetrics], rows: Sequence[tuple[Path, Sequence[CaptionRecord]]]
) -> str:
    """The page.

    Args:
        gesture: HaGRID's name.
        qualities: the captioners' measures.
        rows: an image (PNG), and each captioner's line of it.
    """
    head, *measures = quality_rows(qualities)
    table = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    table += "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in measures)
    articles = []
    for path, lines in rows:
        picture = base64.b64encode(path.read_bytes()).decode("ascii")
        written = "".join(
            f"<dt>{escape(line.captioner)}</dt><dd>{escape(line.caption)}<br><b>{escape(line.text)}</b></dd>"
            for line in lines
        )
        articles.append(f'<article><img alt="" src="data:image/png;base64,{picture}"><dl>{written}</dl></article>')
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">"
        f"<title>Captions of {escape(gesture)}</title><style>{_STYLE}</style>"
        f'<h1>Captions of {escape(gesture)}</h1><div class="wide"><table>{table}</table></div>'
        f"{''.join(articles)}</html>"
    )
