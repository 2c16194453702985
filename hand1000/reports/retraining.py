"""The report of a scheduled retraining: quality gates and data drift."""

from collections.abc import Sequence
from pathlib import Path

from hand1000.evaluation.drift import Drift
from hand1000.evaluation.gates import Gate
from hand1000.reports.html import render_template
from hand1000.storage.files import write_text


def write_retraining(
    path: Path, *, model_uri: str, champion: str, drift: Drift | None, gates: Sequence[Gate], note: str
) -> None:
    """Write the report of a new version as one HTML file.

    `champion` is '' for a first model. If the champion's data is not available, `drift` is None and `note` says why.
    """
    page = render_template(
        "retraining.html.j2", model_uri=model_uri, champion=champion, drift=drift, gates=gates, note=note
    )
    write_text(path, page)
