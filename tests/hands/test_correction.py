"""Correction of malformed landmarks."""

import numpy as np

from hand1000.hands.correction import correct_hand
from tests.support.rendered_hands import detect, rendered_hands


def test_malformed_hand_is_corrected_and_normal_one_stays() -> None:
    (hand,) = detect(rendered_hands()[0].pixels)
    normal = hand.landmarks
    assert np.abs(correct_hand(normal) - normal).max() < 0.02
    lengths = np.linalg.norm(np.diff(normal[8:13], axis=0), axis=1)[1:]
    for factor in (0.4, 2.0):
        malformed = normal.copy()
        malformed[9:13] = normal[9] + factor * (normal[9:13] - normal[9])
        corrected = np.linalg.norm(np.diff(correct_hand(malformed)[8:13], axis=0), axis=1)[1:]
        assert 0.7 < corrected.sum() / lengths.sum() < 1.4
    spread = normal.copy()
    angle = np.radians(70)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    spread[5:9, :2] = normal[5, :2] + (normal[5:9, :2] - normal[5, :2]) @ rotation.T
    directions = [points[8, :2] - points[5, :2] for points in (normal, spread, correct_hand(spread))]
    original, wrong, corrected = (np.degrees(np.arctan2(*direction)) for direction in directions)
    assert abs(wrong - original) > 60 and abs(corrected - original) < 30
    # The correction does not depend on the hand's position and size.
    assert np.allclose(correct_hand(3 * spread + 1), 3 * correct_hand(spread) + 1, atol=1e-4)
