"""The cost of a method, its trainings, and the differences between methods."""

import pytest

from hand1000.core.errors import Hand1000Error
from hand1000.core.tables import Bold
from hand1000.evaluation.method_tables import (
    advantage_table,
    count_wins,
    difference_table,
    gesture_table,
    interval_table,
    mean_table,
)
from hand1000.evaluation.methods import (
    Cost,
    MethodResult,
    estimate_difference,
    estimate_gesture,
    estimate_mean,
    estimate_remaining,
    group_results,
    read_cost,
)
from hand1000.evaluation.metrics import COLUMNS
from tests.support.method_results import make_result, show

DIVERSITY = list(COLUMNS).index("intra-prompt distance") + 1


def test_cost_adds_up_training_generation_and_sources() -> None:
    training = [{"seconds": 60.0, "peak_bytes": 3}, {"seconds": 40.0, "peak_bytes": 9}]
    cost = read_cost(training, [{"seconds": 5.0, "peak_bytes": 1}], [{"seconds": 3.0}, {}], num_images=4)
    assert cost == Cost(train_seconds=100.0, image_seconds=2.0, peak_bytes=9, own_seconds=105.0)
    edited = read_cost(training, [{"seconds": 5.0}], [{"seconds": 3.0}], num_images=4, trains=False)
    assert edited.own_seconds == 5.0 and edited.train_seconds == 100.0


def test_the_time_that_is_left_is_that_of_cells_like_it() -> None:
    seconds = {"sd": [30.0, 90.0], "hand1000": [300.0]}
    assert estimate_remaining(seconds, {"sd": 2, "hand1000": 12}) == "about 1 h 02 min left"
    text = estimate_remaining(seconds, {"sd": 2, "sd_imagic": 1, "hand1000": 0})
    assert text == "about 2 min left, without SD + Imagic, of which none is done"


def test_advantage_has_an_interval_over_the_gestures() -> None:
    def results(accuracy: float, reference: float) -> dict[str, list[MethodResult]]:
        return {
            name: [make_result(name, shown=show(rate), fid=10 * rate)]
            for name, rate in (("sd", reference), ("hand1000", accuracy))
        }

    (row,) = advantage_table({"a": results(0.6, 0.5), "b": results(0.8, 0.5), "c": results(0.7, 0.5)}).rows
    # 0.2 is the mean of 0.1, 0.3 and 0.2; 4.303 is Student's 97.5 % point with two degrees of freedom.
    # A larger FID is worse.
    assert row[:2] == ["SD", f"+0.2 ± {4.303 * 0.1 / 3**0.5:.2g}"] and row[6].startswith("-2 ±")


def test_no_method_has_the_best_diversity() -> None:
    """The images of one prompt should be as different as real ones: neither more nor less."""
    gesture = {"sd": [make_result("sd", diversity=7.0)], "hand1000": [make_result(diversity=9.0)]}
    for table in (gesture_table(gesture), mean_table({"a": gesture, "b": gesture})):
        assert not any(isinstance(row[DIVERSITY], Bold) for row in table.rows)
    (row,) = advantage_table({"a": gesture, "b": gesture}).rows
    assert row[DIVERSITY] == "–" and "+0 ± 0" in row and "-0 ± 0" not in row


def test_a_method_that_copies_its_images_never_wins() -> None:
    copies = make_result("sd_tuned", shown=show(0.9), memorized=show(0.3))
    new = make_result(shown=show(0.5), memorized=show(0.05))
    gesture = {"sd_tuned": [copies], "hand1000": [new]}
    assert count_wins({"a": gesture}, "sd_tuned", "gesture accuracy") == 0
    assert count_wins({"a": gesture}, "hand1000", "gesture accuracy") == 1
    for table in (gesture_table(gesture), mean_table({"a": gesture}), interval_table({"a": gesture})):
        assert [isinstance(row[1], Bold) for row in table.rows] == [False, True]


def repeated(name: str, *rates: float, first_seed: int = 0) -> list[MethodResult]:
    """The results of a training for each rate."""
    return [make_result(name, shown=show(rate), seed=seed) for seed, rate in enumerate(rates, first_seed)]


def test_repeated_trainings_are_averaged_and_widen_the_interval() -> None:
    value, low, high = estimate_gesture(repeated("hand1000", 0.4, 0.5, 0.9), "gesture accuracy") or (0, 0, 0)
    assert value == pytest.approx(0.6) and low < 0.2 and high == 1.0
    # If no image shows the gesture, the resamples are all alike: Wilson's interval of 60 images.
    _, low, high = estimate_gesture(repeated("hand1000", 0.0, 0.0, 0.0), "gesture accuracy") or (0, 0, 0)
    assert low == 0.0 and high == pytest.approx(0.06, abs=2e-3)
    # A single training has Wilson's interval of its images.
    _, low, high = estimate_gesture(repeated("hand1000", 0.6), "gesture accuracy") or (0, 0, 0)
    assert (low, high) == (pytest.approx(0.387, abs=1e-3), pytest.approx(0.781, abs=1e-3))


def test_differences_pair_the_trainings_of_a_seed() -> None:
    lead, noise = 0.2, (0.3, 0.5, 0.7)
    gesture = {
        "sd": repeated("sd", 0.1),
        "sd_tuned": repeated("sd_tuned", *noise),
        "hand1000": repeated("hand1000", *(rate + lead for rate in noise)),
    }
    results = {"a": gesture, "b": gesture}
    estimate = estimate_difference(results, "hand1000", "sd_tuned", "gesture accuracy")
    # The trainings differ by 0.4, and the lead of each by nothing.
    assert estimate and estimate.value == pytest.approx(lead) and estimate.low > 0.1
    mean = estimate_mean(results, "hand1000", "gesture accuracy")
    assert mean and mean[2] - mean[1] > 2 * (estimate.high - estimate.low)
    # A method without a training is compared with each.
    against_base = estimate_difference(results, "hand1000", "sd", "gesture accuracy")
    assert against_base and against_base.value == pytest.approx(0.6)
    row = next(row for row in difference_table(results).rows if row[0] == "Hand1000")
    assert row[1].startswith("+0.2 (+0.")


def test_trainings_of_other_seeds_are_no_pairs() -> None:
    gesture = {"sd_tuned": repeated("sd_tuned", 0.1, 0.2), "hand1000": repeated("hand1000", 0.1, 0.2, first_seed=5)}
    with pytest.raises(Hand1000Error, match="equal seeds"):
        estimate_difference({"a": gesture}, "hand1000", "sd_tuned", "gesture accuracy")


def test_a_missing_metric_has_no_difference() -> None:
    gesture = {"sd_tuned": repeated("sd_tuned", 0.1, 0.2), "hand1000": repeated("hand1000", 0.1, 0.2)}
    assert estimate_difference({"a": gesture}, "hand1000", "sd_tuned", "memorization rate") is None
    assert estimate_mean({"a": gesture}, "hand1000", "memorization rate") is None


def test_results_are_grouped_in_the_papers_order() -> None:
    results = [make_result("hand1000", seed=1), make_result("sd"), make_result("hand1000", seed=2)]
    assert {name: [row.seed for row in rows] for name, rows in group_results(results).items()} == {
        "sd": [0],
        "hand1000": [1, 2],
    }
