"""The gates of a candidate as a table."""

from hand1000.core.tables import Bold, Table, format_number
from hand1000.evaluation.gate_report import GateReport, GateResult

_ORDER = ("failed", "undecided", "passed")


def format_gate_interval(gate: GateResult) -> str:
    """The 95 % interval of the value or, after Δ, of the difference to the model that the rule names."""
    if gate.low is None or gate.high is None:
        return "–"
    # A comparison's rule names the other model: "at most 0.05 below the champion's 0.9".
    if "the champion's" in gate.rule or "the base model's" in gate.rule:
        return f"Δ {gate.low:+.3g} to {gate.high:+.3g}".replace("-", "−")
    return f"{gate.low:.3g} to {gate.high:.3g}"


def gate_table(report: GateReport) -> Table:
    """The gates as a table, those that failed first, then the undecided ones, both in bold."""
    rows = []
    for gate in sorted(report.results, key=lambda gate: _ORDER.index(gate.outcome)):
        value = "not measured" if gate.value is None else format_number(gate.value)
        name = f"{gate.name}, {gate.gesture}" if gate.gesture else gate.name
        result = gate.outcome if gate.passed else Bold(gate.outcome)
        rows.append((name, gate.rule, value, format_gate_interval(gate), format_number(gate.champion), result))
    return Table(("gate", "rule", "candidate", "95 % interval", "champion", "result"), rows, numeric=(2, 3, 4))
