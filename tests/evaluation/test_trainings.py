"""Intervals over repeated trainings: their coverage on simulated trainings, and what they are made of."""

import numpy as np
import pytest

from hand1000.core.rng import numpy_generator
from hand1000.evaluation import trainings
from hand1000.evaluation.trainings import estimate_over_gestures, estimate_over_trainings

TRIALS = 400


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as the interval's ends need in the mean of many trials."""
    monkeypatch.setattr(trainings, "_RESAMPLES", 400)


def simulate(trial: int, shape: tuple[int, int, int], sizes: tuple[float, float, float]) -> list[np.ndarray]:
    """Values of gestures, each with T trainings of N prompts, around 0.

    The sizes are the standard deviations of the trainings, of the prompts, and of each image.
    """
    generator = numpy_generator(trial, "simulation")
    num_gestures, num_trainings, num_prompts = shape
    return [
        sizes[0] * generator.standard_normal((num_trainings, 1))
        + sizes[1] * generator.standard_normal((1, num_prompts))
        + sizes[2] * generator.standard_normal((num_trainings, num_prompts))
        for _ in range(num_gestures)
    ]


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        pytest.param((6, 3, 20), (0.1, 0.2, 0.4), id="comparison"),
        pytest.param((6, 3, 20), (0.0, 0.4, 0.3), id="prompts_decide"),
        pytest.param((6, 3, 20), (0.0, 0.0, 0.5), id="drawing_decides"),
        pytest.param((6, 3, 1), (1.0, 0.0, 0.0), id="whole_image_sets"),
        pytest.param((2, 3, 20), (0.1, 0.2, 0.4), id="few_gestures"),
        pytest.param((6, 1, 20), (0.0, 0.4, 0.0), id="one_training"),
    ],
)
def test_the_interval_covers_the_mean_in_95_of_100(
    shape: tuple[int, int, int], sizes: tuple[float, float, float]
) -> None:
    covered, widths, means = 0, [], []
    for trial in range(TRIALS):
        estimate = estimate_over_trainings(simulate(trial, shape, sizes), numpy_generator(trial, "bootstrap"))
        assert estimate is not None
        covered += estimate.low <= 0 <= estimate.high
        widths.append(estimate.high - estimate.low)
        means.append(estimate.value)
    # 0.95 +- 0.03, and never much wider than the interval of who knows the variance.
    assert 0.915 <= covered / TRIALS <= 0.985
    assert np.mean(widths) < 1.6 * 2 * 1.96 * np.std(means)


def test_a_single_training_has_no_variance_of_training() -> None:
    values = [np.array([[0.0, 1.0] * 50])] * 2
    estimate = estimate_over_trainings(values, numpy_generator(0))
    # Two gestures of 100 images: 1.96 sqrt(0.25 / 200).
    assert estimate and estimate.value == 0.5 and estimate.high - 0.5 == pytest.approx(0.069, abs=0.01)
    assert estimate_over_trainings([np.array([[3.0]])], numpy_generator(0)) is None


def test_differences_between_trainings_widen_the_interval() -> None:
    def width(*rates: float) -> float:
        values = [np.array([[float(index < 100 * rate) for index in range(100)] for rate in rates])] * 6
        estimate = estimate_over_trainings(values, numpy_generator(0))
        assert estimate
        return estimate.high - estimate.low

    assert width(0.3, 0.5, 0.7) > 1.5 * width(0.5, 0.5, 0.5)


def test_the_same_generator_gives_the_same_interval() -> None:
    values = simulate(0, (2, 3, 10), (0.1, 0.2, 0.4))
    first, second, other = (estimate_over_trainings(values, numpy_generator(seed)) for seed in (1, 1, 2))
    assert first == second != other


def test_gestures_as_a_sample_have_students_interval() -> None:
    estimate = estimate_over_gestures([0.1, 0.3, 0.2])
    # 4.303 is Student's 97.5 % point with two degrees of freedom.
    assert estimate and estimate.high - estimate.value == pytest.approx(4.303 * 0.1 / 3**0.5, rel=1e-3)
    assert estimate_over_gestures([0.1]) is None
