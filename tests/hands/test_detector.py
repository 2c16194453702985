"""MediaPipe Hands on rendered images, whose landmarks are known."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

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


def test_landmarks_and_scores_are_the_stored_ones() -> None:
    """A detector that places points elsewhere would change every feature; see docs/dependencies.md."""
    folder = Path(__file__).with_name("stored")
    with HandDetector(0.5) as detector:
        for name, stored in json.loads((folder / "landmarks.json").read_text()).items():
            detection = detector.detect_with_scores(np.asarray(Image.open(folder / f"{name}.png")))
            (hand,) = detection.hands
            # 0.2 pixels of 96; the arithmetic of another CPU differs by less than a hundredth of that.
            assert np.abs(hand.landmarks - stored["landmarks"]).max() < 0.002, name
            scores = np.array([hand.score, detection.palm_score, detection.presence])
            assert np.abs(scores - [stored["score"], stored["palm_score"], stored["presence"]]).max() < 0.01, name
            assert hand.right == stored["right"]
