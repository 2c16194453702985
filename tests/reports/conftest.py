"""The page of a finished run with made-up results."""

from pathlib import Path

import pytest

from hand1000.reports.training import write_report
from tests.support.finished_run import candidate, make_run


@pytest.fixture(scope="session")
def review_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The review page of a run of 60 images with a champion."""
    folder = tmp_path_factory.mktemp("review")
    write_report(folder / "report.html", make_run(folder / "run"), candidate())
    return folder / "report.html"
