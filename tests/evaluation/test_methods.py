"""The cost of a method, and its advantage over other methods."""

import pytest

from hand1000.core.tables import Bold
from hand1000.evaluation.distances import Distance
from hand1000.evaluation.methods import Cost, MethodResult, advantage_table, gesture_table, mean_table, read_cost
from hand1000.evaluation.metrics import COLUMNS, Metrics


@pytest.fixture
def result() -> MethodResult:
    """Made-up metrics and cost of one method."""
    metrics = Metrics(
        gesture="four",
        n_real=2,
        n_fake=2,
        hands_real=2,
        hands_fake=2,
        fid=1.0,
        kid=Distance(value=0.1, low=0.0, high=0.2),
        cmmd=None,
        fid_h=1.0,
        kid_h=None,
        hand_conf=0.9,
        detection_rate=1.0,
        gesture_accuracy=0.5,
        real_detection_rate=1.0,
        real_gesture_accuracy=1.0,
        palm_score=0.9,
        hand_presence=0.9,
        implausible_hand_rate=None,
        clip_score=None,
        color_faithfulness={"wall": 1.0},
        real_color_faithfulness={"wall": 1.0},
        intra_prompt_distance=None,
        memorization_rate=None,
        by_gesture={},
        extractor="none",
        extractor_sha256="",
        resizer="",
        classifier_sha256="",
        min_detection_confidence=0.5,
        notes=(),
        images=(),
    )
    return MethodResult(metrics=metrics, cost=Cost(train_seconds=1.0, image_seconds=1.0, peak_bytes=1))


def test_cost_adds_up_training_generation_and_sources() -> None:
    training = [{"seconds": 60.0, "peak_bytes": 3}, {"seconds": 40.0, "peak_bytes": 9}]
    cost = read_cost(training, [{"seconds": 5.0, "peak_bytes": 1}], [{"seconds": 3.0}, {}], num_images=4)
    assert cost == Cost(train_seconds=100.0, image_seconds=2.0, peak_bytes=9)


def test_advantage_has_an_interval_over_the_gestures(result: MethodResult) -> None:
    def results(accuracy: float, reference: float) -> dict[str, MethodResult]:
        return {
            name: result.model_copy(
                update={"metrics": result.metrics.model_copy(update={"gesture_accuracy": rate, "fid": 10 * rate})}
            )
            for name, rate in (("sd", reference), ("hand1000", accuracy))
        }

    (row,) = advantage_table({"a": results(0.6, 0.5), "b": results(0.8, 0.5), "c": results(0.7, 0.5)}).rows
    # 0.2 is the mean of 0.1, 0.3 and 0.2; 4.303 is Student's 97.5 % point with two degrees of freedom.
    # A larger FID is worse.
    assert row[:2] == ["SD", f"+0.2 ± {4.303 * 0.1 / 3**0.5:.2g}"] and row[6].startswith("-2 ±")


def test_no_method_has_the_best_diversity(result: MethodResult) -> None:
    """The images of one prompt should be as different as real ones: neither more nor less."""
    first, second = (
        result.model_copy(update={"metrics": result.metrics.model_copy(update={"intra_prompt_distance": value})})
        for value in (7.0, 9.0)
    )
    gesture = {"sd": first, "hand1000": second}
    column = list(COLUMNS).index("intra-prompt distance") + 1
    for table in (gesture_table(gesture), mean_table({"a": gesture, "b": gesture})):
        assert not any(isinstance(row[column], Bold) for row in table.rows)
    (row,) = advantage_table({"a": gesture, "b": gesture}).rows
    assert row[column] == "–" and "+0 ± 0" in row and "-0 ± 0" not in row
