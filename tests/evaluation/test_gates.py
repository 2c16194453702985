"""Quality gates of a retrained model."""

from hand1000.config.gates import GateSettings
from hand1000.evaluation.gates import evaluate_gates


def test_gate_fails_for_a_metric_that_was_not_measured() -> None:
    gates = GateSettings(min_gesture_accuracy=0.5, min_detection_rate=0.8, max_kid_h_increase=0.1)
    good = {"gesture accuracy": 0.5, "detection rate": 0.9, "KID-H": 0.6}
    assert all(gate.passed for gate in evaluate_gates(good, {"KID-H": 0.5}, gates))
    assert [gate.passed for gate in evaluate_gates(good, {"KID-H": 0.49}, gates)] == [True, True, False]
    assert [gate.name for gate in evaluate_gates(good, None, gates)] == ["gesture accuracy", "detection rate"]
    without = {"detection rate": 0.79}
    assert [str(gate) for gate in evaluate_gates(without, None, gates) if not gate.passed] == [
        "gesture accuracy not measured, at least 0.5",
        "detection rate 0.79, at least 0.8",
    ]
