"""The report of a captioned dataset: images with the captions of every captioner."""

from collections.abc import Sequence
from pathlib import Path

from hand1000.captions.metrics import CaptionMetrics, caption_metrics_table
from hand1000.captions.records import CaptionRecord
from hand1000.reports.html import render_template


def render_captions_page(
    gesture: str, metrics: Sequence[CaptionMetrics], rows: Sequence[tuple[Path, Sequence[CaptionRecord]]]
) -> str:
    """Render the report as HTML; each row is an image file with the record of every captioner."""
    return render_template("captions.html.j2", gesture=gesture, metrics=caption_metrics_table(metrics), rows=rows)
