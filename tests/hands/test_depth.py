"""Depth maps rendered from MediaPipe's landmarks."""

import numpy as np
import pytest

from hand1000.hands.depth import FAR, NEAR, render_hand_depth
from tests.support.rendered_hands import detect, rendered_hands


def test_depth_map_covers_the_hand_and_orders_depth() -> None:
    palm = rendered_hands()[0]
    (hand,) = detect(palm.pixels)
    depth = render_hand_depth([hand.landmarks], 96)
    assert depth.shape == (96, 96) and depth.dtype == np.float32
    assert depth.max() == pytest.approx(NEAR, abs=0.02) and depth[depth > 0.15].min() >= 0.15 > 0
    # The map covers the hand's box and hardly anything else.
    x, y, width, height = (round(96 * value) for value in palm.box)
    inside = depth[y : y + height, x : x + width]
    assert (inside > 0).mean() > 0.25 and (depth > 0).sum() - (inside > 0).sum() < 0.1 * (depth > 0).sum()
    for joint in range(21):
        column, row = (hand.landmarks[joint, :2] * 96).astype(int)
        assert depth[row, column] > FAR - 0.1, joint
    # A finger that comes towards the viewer is nearer than the rest.
    bent = hand.landmarks.copy()
    bent[5:9, 2] -= np.array([0.0, 0.1, 0.2, 0.3], np.float32)
    column, row = (bent[8, :2] * 96).astype(int)
    towards = render_hand_depth([bent], 96)
    assert towards[row, column] > 0.95 and towards[row, column] > depth[row, column]
    # The maps of two hands add up; no hand gives an empty map.
    aside = hand.landmarks + np.array([0.4, 0, 0], np.float32)
    assert (render_hand_depth([hand.landmarks, aside], 96) >= depth).all()
    assert not render_hand_depth([], 96).any() and not render_hand_depth([hand.landmarks + 5], 96).any()


def test_larger_map_shows_the_same_hand() -> None:
    (hand,) = detect(rendered_hands()[0].pixels)
    small, large = render_hand_depth([hand.landmarks], 64), render_hand_depth([hand.landmarks], 512)
    averaged = large.reshape(64, 8, 64, 8).mean(axis=(1, 3))
    assert np.abs(small - averaged).mean() < 0.01
