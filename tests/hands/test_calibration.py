"""Temperature, threshold and calibration error on outputs whose right values are known."""

import numpy as np
import pytest
import torch

from hand1000.hands.calibration import calibration_error, choose_threshold, fit_temperature


def test_temperature_undoes_a_scale() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4000, 5, generator=generator) * 2
    targets = torch.multinomial(logits.softmax(dim=1), 1, generator=generator)[:, 0]
    for scale in (0.5, 1.0, 2.5):
        assert fit_temperature(logits * scale, targets) == pytest.approx(scale, rel=0.08)


def test_calibrated_probabilities_have_no_error() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.random(20_000)
    correct = rng.random(20_000) < probabilities
    assert calibration_error(probabilities, correct) < 0.02
    assert calibration_error(np.full(100, 0.95), np.arange(100) < 50) == pytest.approx(0.45)


def test_threshold_rejects_no_more_right_hands_than_asked() -> None:
    probabilities = np.linspace(0, 1, 1001)
    correct = probabilities > 0.2
    threshold = choose_threshold(probabilities, correct, 0.1)
    assert (probabilities[correct] < threshold).mean() <= 0.1 and threshold == pytest.approx(0.28, abs=0.002)
    assert choose_threshold(np.array([]), np.array([], bool)) == 0
