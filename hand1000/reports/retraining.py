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
    """Write the report as one HTML file.

    Args:
        path: Output file.
        model_uri: The new version.
        champion: The version it is compared with; '' for a first model.
        drift: Data drift since the champion; None if the champion's data is not available.
        gates: All gates.
        note: Why there is no drift; '' if there is.
    """
    page = render_template(
        "retraining.html.j2", model_uri=model_uri, champion=champion, drift=drift, gates=gates, note=note
    )
    write_text(path, page)
