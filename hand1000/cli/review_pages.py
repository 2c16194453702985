"""What `hand1000 review` prints: tables for a terminal, and JSON for programs."""

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hand1000.config.base import validate_settings
from hand1000.core.errors import Hand1000Error
from hand1000.core.tables import Table, format_number
from hand1000.evaluation.gate_report import GateReport
from hand1000.registry.connection import Tracking
from hand1000.registry.decisions import Decision
from hand1000.registry.review import ReviewCommands
from hand1000.registry.review_state import Candidate, ReviewedModel
from hand1000.registry.versions import REMOVED, RegisteredVersion
from hand1000.reports.gate_table import gate_table
from hand1000.storage.files import read_json

_MAX_GATES = 80
_GATES_FILE = "gates.json"
_REPORT_FILE = "report.html"
_TIME = "%Y-%m-%d %H:%M"


def format_candidates(models: Sequence[ReviewedModel], rows: Sequence[tuple[ReviewedModel, Candidate]]) -> str:
    """Return the table of candidates, then one line for the champion of each model."""
    header = ("candidate", "state", "gates", "compared with", "registered (UTC)", "outcome of the gates")
    cells = [
        (
            f"{model.pair.gestures}/{candidate.version.version}",
            candidate.state,
            candidate.verdict or "none",
            _compared_with(candidate),
            f"{candidate.created:{_TIME}}",
            _shorten(candidate.gates.partition(": ")[2] or candidate.gates, _MAX_GATES),
        )
        for model, candidate in rows
    ]
    table = Table(header, cells).text() if cells else "no candidate in this state\n"
    return f"{table}\n" + "".join(f"{_describe_champion(model)}\n" for model in models)


def format_candidate(
    tracking: Tracking,
    model: ReviewedModel,
    candidate: Candidate,
    gates: GateReport | None,
    commands: ReviewCommands,
) -> str:
    """Return all that a reviewer needs to know about one candidate, and the commands to decide."""
    version, (run, report) = candidate.version, _addresses(tracking, candidate)
    facts = [
        ("state", candidate.state),
        ("gates", candidate.verdict or "none"),
        ("compared with", _compared_with(candidate)),
        ("champion now", _describe_champion(model).partition(": ")[2]),
        ("registered", f"{candidate.created:{_TIME}} UTC"),
        ("run", run),
        ("report", report),
    ]
    width = max(len(name) for name, _ in facts)
    lines = [version.uri, *(f"  {name:{width}}  {value}" for name, value in facts if value)]
    if gates:
        lines += ["", gate_table(gates).text().rstrip(), *gates.notes]
    elif candidate.gates:
        lines += ["", candidate.gates]
    if version.metrics:
        rows = [(name, format_number(value)) for name, value in sorted(version.metrics.items())]
        lines += ["", Table(("metric", "value"), rows, numeric=[1]).text().rstrip()]
    lines += ["", *(_describe(decision) for decision in candidate.decisions)] if candidate.decisions else []
    removed = candidate.version.tags.get(REMOVED, "")
    if removed:
        lines += ["", f"weights removed on {removed[:10]}: this version cannot be promoted; train it again"]
    if candidate.state == "approved":
        decide = [commands.rollback] if model.previous else []
    else:
        decide = [commands.compare] if model.champion else []
        decide += [] if removed else [commands.promote]
        decide += [commands.reject] if candidate.state != "rejected" else []
    return "\n".join([*lines, *(["", "next"] if decide else []), *(f"  {line}" for line in decide), ""])


def format_comparison(candidate: RegisteredVersion, other: RegisteredVersion) -> str:
    """Return the metrics of both versions and their differences."""
    rows = []
    for name in sorted({*candidate.metrics, *other.metrics}):
        new, old = candidate.metrics.get(name, math.nan), other.metrics.get(name, math.nan)
        values = (None if math.isnan(value) else value for value in (old, new))
        difference = "–" if math.isnan(new - old) else f"{new - old:+.4g}"
        rows.append((name, *map(format_number, values), difference))
    titles = ("metric", other.uri.removeprefix("models:/"), candidate.uri.removeprefix("models:/"), "difference")
    return Table(titles, rows, numeric=range(1, 4)).text()


def format_history(model: ReviewedModel) -> str:
    """Return the decisions, oldest first, and the champion."""
    rows = [
        (
            decision.number,
            f"{decision.when:{_TIME}}",
            decision.who,
            f"{decision.action}{' (override)' if decision.override else ''}",
            f"{model.pair.gestures}/{decision.candidate}" if decision.candidate else "–",
            decision.version or "–",
            decision.champion_before or "–",
            decision.why,
        )
        for decision in model.decisions
    ]
    header = ("#", "when (UTC)", "who", "decision", "candidate", "champion", "before", "why")
    table = Table(header, rows, numeric=(0, 5, 6)).text() if rows else "no decisions yet\n"
    return f"{table}\n{_describe_champion(model)}\n"


def candidate_json(model: ReviewedModel, candidate: Candidate) -> dict[str, Any]:
    """Return a candidate as JSON."""
    return {
        "uri": candidate.version.uri,
        "candidate": candidate.version.version,
        "model": model.pair.name,
        "state": candidate.state,
        "verdict": candidate.verdict or None,
        "gates": candidate.gates,
        "compared_with": candidate.compared_with,
        "registered": candidate.created.isoformat(timespec="seconds"),
        "run_id": candidate.run_id,
        "metrics": dict(sorted(candidate.version.metrics.items())),
        "champion": model.champion,
        "previous": model.previous,
        "decisions": [decision_json(decision) for decision in candidate.decisions],
    }


def decision_json(decision: Decision) -> dict[str, Any]:
    """Return a decision as JSON, with its number."""
    return {"number": decision.number, **decision.model_dump(mode="json")}


def read_gates(tracking: Tracking, candidate: Candidate) -> GateReport | None:
    """Return the report in the file `gates.json` of the candidate's run, None if the run has none."""
    if _GATES_FILE not in _artifacts(tracking, candidate):
        return None
    with tempfile.TemporaryDirectory() as folder, tracking.readable_errors():
        path = tracking.client.download_artifacts(candidate.run_id, _GATES_FILE, folder)
        return validate_settings(GateReport, read_json(Path(path)), f"{_GATES_FILE} of run {candidate.run_id}")


def _compared_with(candidate: Candidate) -> str:
    compared = candidate.compared_with
    return "unknown" if compared is None else compared.removeprefix("models:/") or "none"


def _describe_champion(model: ReviewedModel) -> str:
    name = model.pair.name
    if model.champion is None:
        return f"{name}: no champion"
    candidate = model.candidate_of(model.champion)
    line = f"{name}: champion {model.champion}"
    line += f" (candidate {candidate})" if candidate else ""
    line += f", previous {model.previous}" if model.previous else ""
    decided = [decision.version for decision in model.decisions if decision.version]
    if decided and decided[-1] != model.champion:
        line += "; the alias was moved without a decision: promote or roll back to record one"
    return line


def _describe(decision: Decision) -> str:
    what = f"{decision.action}{' (override)' if decision.override else ''}"
    return f"{decision.when:{_TIME}}  {decision.who}  {what}  {decision.why}".rstrip()


def _artifacts(tracking: Tracking, candidate: Candidate) -> set[str]:
    """Return the names of the files of the candidate's run; none if the run was deleted or cannot be read."""
    try:
        with tracking.readable_errors():
            return {file.path for file in tracking.client.list_artifacts(candidate.run_id)}
    except Hand1000Error:
        return set()


def _addresses(tracking: Tracking, candidate: Candidate) -> tuple[str, str]:
    """Return where a person finds the run and its report; "" for what does not exist."""
    try:
        with tracking.readable_errors():
            run = tracking.client.get_run(candidate.run_id)
    except Hand1000Error:
        return candidate.run_id, ""
    has_report = _REPORT_FILE in _artifacts(tracking, candidate)
    if tracking.lock_file is not None:
        folder = run.info.artifact_uri.removeprefix("file://")
        return f"{run.info.run_name} ({candidate.run_id})", f"{folder}/{_REPORT_FILE}" if has_report else ""
    page = f"{tracking.redacted_uri.rstrip('/')}/#/experiments/{run.info.experiment_id}/runs/{candidate.run_id}"
    return page, f"{page}/artifacts/{_REPORT_FILE}" if has_report else ""


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
