"""Quality gates of a new model: thresholds, comparisons with the champion, and what decides."""

from typing import Any

import numpy as np
import pytest

from hand1000.config.gates import GateSettings, GeneralGateBounds
from hand1000.config.settings import load_settings
from hand1000.evaluation.gate_report import GateReport
from hand1000.evaluation.gates import evaluate_gates
from hand1000.evaluation.paired import Estimate, estimate_rate, estimate_rate_difference
from hand1000.evaluation.paired_metrics import PairedMetric, PairedMetrics

CHAMPION = "models:/hand1000-four/3"
OFF = {"threshold": None, "max_loss": None}
GENERAL_OFF = {"max_loss_to_base": None, "max_loss": None}


def make_settings(**bounds: dict[str, float | None]) -> GateSettings:
    """All gates are off but those of `bounds`."""
    off = {
        name: GENERAL_OFF if field.annotation is GeneralGateBounds else OFF
        for name, field in GateSettings.model_fields.items()
    }
    return GateSettings.model_validate(off | {"on_failed_gate": "register"} | bounds)


def make_outcomes(rate: float, count: int = 200) -> np.ndarray:
    """`count` successes and failures in a shuffled order."""
    return np.random.default_rng(int(1000 * rate)).permutation(np.arange(count) < round(rate * count))


def make_rate(name: str, *, gesture: str | None = None, **models: np.ndarray) -> PairedMetric:
    return PairedMetric(
        name=name,
        gesture=gesture,
        better="higher",
        n=len(models["tuned"]),
        models={model: estimate_rate(values) for model, values in models.items()},
        differences={
            model: estimate_rate_difference(models["tuned"], values)
            for model, values in models.items()
            if model != "tuned"
        },
    )


def make_low(name: str, value: float, champion: float, half_width: float) -> PairedMetric:
    """A metric for which lower is better, with the half-width of the interval of the difference."""
    difference = value - champion
    return PairedMetric(
        name=name,
        gesture=None,
        better="lower",
        n=200,
        models={"tuned": exact(value), "champion": exact(champion)},
        differences={"champion": Estimate(value=difference, low=difference - half_width, high=difference + half_width)},
    )


def exact(value: float) -> Estimate:
    return Estimate(value=value, low=value, high=value)


def judge(settings: GateSettings, *metrics: PairedMetric, champion: str = CHAMPION) -> GateReport:
    return evaluate_gates(PairedMetrics(metrics=metrics), settings, champion)


ACCURACY = {"threshold": 0.3, "max_loss": 0.05}


@pytest.mark.parametrize(
    ("champion", "tuned", "passes"),
    [(0.95, 0.50, False), (0.95, 0.80, False), (0.65, 0.63, True), (0.65, 0.65, True), (0.65, 0.9, True)],
)
def test_accuracy_fails_if_the_loss_is_beyond_chance(champion: float, tuned: float, passes: bool) -> None:
    metric = make_rate("gesture accuracy", tuned=make_outcomes(tuned), champion=make_outcomes(champion))
    report = judge(make_settings(gesture_accuracy=ACCURACY), metric)
    threshold, comparison = report.results
    assert threshold.passed and threshold.rule == "at least 0.3" and threshold.champion == pytest.approx(champion)
    assert comparison.passed == passes == report.passed
    assert comparison.rule == f"at most 0.05 below the champion's {champion:.4g}"
    assert comparison.low is not None and comparison.high is not None
    # The end that is most favorable to the new model decides.
    assert passes == (comparison.high >= -0.05)
    assert report.verdict == ("passed" if passes else "failed") and report.champion == CHAMPION


def test_noise_between_equal_models_never_fails_a_gate() -> None:
    generator = np.random.default_rng(0)
    settings = make_settings(gesture_accuracy={"threshold": None, "max_loss": 0.05})
    for _ in range(50):
        tuned, champion = generator.random((2, 200)) < 0.65
        assert judge(settings, make_rate("gesture accuracy", tuned=tuned, champion=champion)).passed


def test_each_gesture_has_gates_of_its_own() -> None:
    rows = [
        make_rate("gesture accuracy", gesture=gesture, tuned=make_outcomes(rate))
        for gesture, rate in (("call", 0.0), ("four", 1.0))
    ]
    report = judge(make_settings(gesture_accuracy={"threshold": 0.5, "max_loss": 0.05}), *rows, champion="")
    assert [(result.gesture, result.passed) for result in report.results] == [("call", False), ("four", True)]
    assert report.summary == "failed: gesture accuracy, call 0, at least 0.5"


def test_lower_is_better_for_distances_and_faults() -> None:
    settings = make_settings(kid_h={"threshold": 2.0, "max_loss": 0.1})
    assert judge(settings, make_low("KID-H", 1.0, 0.95, 0.2)).passed
    assert judge(settings, make_low("KID-H", 1.25, 1.0, 0.2)).passed  # Perhaps only 0.05 more.
    assert [gate.passed for gate in judge(settings, make_low("KID-H", 1.35, 1.0, 0.2)).results] == [True, False]
    assert [gate.passed for gate in judge(settings, make_low("KID-H", 2.1, 2.1, 0.2)).results] == [False, True]


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("implausible hand rate", "implausible_hand_rate"),
        ("memorization rate", "memorization_rate"),
        ("general KID", "general_kid"),
    ],
)
def test_every_fault_has_a_threshold_and_a_comparison(name: str, field: str) -> None:
    settings = make_settings(**{field: {"threshold": 0.5, "max_loss": 0.1}})
    assert judge(settings, make_low(name, 0.3, 0.3, 0.01)).passed
    assert [gate.passed for gate in judge(settings, make_low(name, 0.6, 0.3, 0.01)).results] == [False, False]


@pytest.mark.parametrize(("name", "field"), [("diversity", "diversity"), ("color faithfulness", "color_faithfulness")])
def test_diversity_and_colors_must_not_fall(name: str, field: str) -> None:
    settings = make_settings(**{field: {"threshold": 0.5, "max_loss": 0.1}})
    worse = make_rate(name, tuned=make_outcomes(0.4), champion=make_outcomes(0.9))
    assert [gate.passed for gate in judge(settings, worse).results] == [False, False]
    assert judge(settings, make_rate(name, tuned=make_outcomes(0.9), champion=make_outcomes(0.9))).passed


@pytest.mark.parametrize("field", ["general_detection_rate", "general_color_faithfulness"])
def test_a_model_that_forgot_the_rest_fails_without_a_champion(field: str) -> None:
    name = field.replace("_", " ")
    settings = make_settings(**{field: {"max_loss_to_base": 0.1, "max_loss": 0.05}})
    forgot = make_rate(name, tuned=make_outcomes(0.3, 100), base=make_outcomes(0.9, 100))
    report = judge(settings, forgot, champion="")
    assert report.summary == f"failed: {name} 0.3, at most 0.1 below the base model's 0.9"
    assert judge(settings, make_rate(name, tuned=make_outcomes(0.88, 100), base=make_outcomes(0.9, 100))).passed


def test_a_metric_that_was_not_measured_fails() -> None:
    missing: dict[str, Any] = {"gesture": None, "better": "higher", "n": 200, "models": {}, "differences": {}}
    settings = make_settings(gesture_accuracy=ACCURACY)
    report = judge(settings, PairedMetric(name="gesture accuracy", **missing), champion="")
    assert report.summary == "failed: gesture accuracy not measured, at least 0.3"


def test_a_gate_that_the_data_do_not_allow_is_a_note() -> None:
    settings = make_settings(color_faithfulness={"threshold": 0.5, "max_loss": 0.1}, gesture_accuracy=ACCURACY)
    few = make_rate("gesture accuracy", tuned=make_outcomes(0.5, 6), champion=make_outcomes(1.0, 6))
    report = judge(settings, few)
    assert report.passed and len(report.results) == 2
    assert report.notes == (
        "color faithfulness has no gate: the prompts name no colors that the test images define",
        "6 images per model: the intervals are wide, so that a comparison detects large losses only",
    )


@pytest.mark.parametrize("preset", ["default", "demo", "fast", "paper", "sd3", "sdxl", "zimage"])
def test_every_preset_has_gates(preset: str) -> None:
    gates = load_settings(preset).gates
    assert gates.gesture_accuracy.threshold and gates.detection_rate.threshold and gates.on_failed_gate == "register"


def test_a_classifier_that_fails_on_real_images_decides_nothing() -> None:
    reason = "undecided: the gesture classifier names 0.3 of 40 real hands"
    metric = make_rate("gesture accuracy", gesture="call", tuned=make_outcomes(0.9), champion=make_outcomes(0.95))
    other = make_rate("detection rate", tuned=make_outcomes(0.9))
    settings = make_settings(gesture_accuracy=ACCURACY, detection_rate={"threshold": 0.8, "max_loss": None})
    report = judge(settings, metric.model_copy(update={"undecided": reason}), other)
    assert [gate.outcome for gate in report.results] == ["undecided", "undecided", "passed"]
    assert report.verdict == "undecided" and not report.passed and not report.failures
    assert report.summary == f"undecided: gesture accuracy, call: {reason.removeprefix('undecided: ')}"
    # A gate that failed decides in any case.
    settings = make_settings(gesture_accuracy=ACCURACY, detection_rate={"threshold": 0.95, "max_loss": None})
    report = judge(settings, metric.model_copy(update={"undecided": reason}), other)
    assert report.verdict == "failed" and report.summary.startswith("failed: detection rate")
    assert GateReport.model_validate_json(report.model_dump_json()) == report
