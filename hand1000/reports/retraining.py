"""The page of a retraining: what changed in the data, and whether the new model passed its gates."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from hand1000.evaluation.drift import Drift
from hand1000.evaluation.gates import Gate
from hand1000.reports.html import facts, page, section
from hand1000.storage.files import write_text


def write_retraining(
    path: Path, *, model_uri: str, champion: str, drift: Drift | None, gates: Sequence[Gate], note: str
) -> None:
    """Write one self-contained page.

    Args:
        path: of the page.
        model_uri: the new version.
        champion: the version that it is held against; '' where there was none.
        drift: of its data; None where there is nothing to compare with.
        gates: all of them.
        note: why there is no drift; '' where there is.
    """
    judged = [(str(gate), "passed" if gate.passed else "failed") for gate in gates]
    sections = [
        f"<header><h1>{escape(model_uri)}</h1></header>",
        section("Gates", facts([("held against", champion or "nothing: it is the first"), *judged])),
        section("Data, against the champion's", facts(drift.rows()) if drift else f"<p>{escape(note)}</p>"),
    ]
    write_text(path, page(f"Hand1000: retraining, {model_uri}", sections))
