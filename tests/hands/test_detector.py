"""MediaPipe Hands on rendered images, whose landmarks are known."""

import numpy as np

from hand1000.hands.detector import HandDetector
from tests.support.rendered_hands import rendered_hands


def test_hand_is_detected_with_position_and_side() -> None:
    with HandDetector(0.5) as detector:
        for rendered in rendered_hands():
            (hand,) = detector.detect(rendered.pixels)
            error = np.linalg.norm(hand.landmarks[:, :2] - rendered.landmarks, axis=1).mean()
            assert error < 0.12 * max(rendered.box[2:]), rendered.gesture
            assert hand.right == rendered.right, rendered.gesture
            assert 0.5 <= hand.score <= 1
            (mirrored,) = detector.detect(rendered.pixels[:, ::-1])
            assert mirrored.right != hand.right
        assert detector.detect(np.full((64, 64, 3), 127, np.uint8)) == []
