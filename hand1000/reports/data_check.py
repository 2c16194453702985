"""The page of `hand1000 data check`: one HTML file with the counts, the problems and thumbnails of a source."""

from collections.abc import Sequence
from pathlib import Path

from hand1000.data.check_report import SourceReport, overview_table, problems_table
from hand1000.reports.html import render_template
from hand1000.storage.files import write_text


def write_data_page(path: Path, address: str, reports: Sequence[SourceReport]) -> None:
    """Write what `reports` say about the source at `address`, completely or not at all.

    Raises:
        Hand1000Error: `path` is not writable.
    """
    page = render_template(
        "data_check.html.j2",
        address=address,
        overview=overview_table(reports),
        reports=[(report, problems_table(report)) for report in reports],
    )
    write_text(path, page)
