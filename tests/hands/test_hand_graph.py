"""Our graph of MediaPipe Hands against MediaPipe's own solution, which lacks the scores."""

import numpy as np
from PIL import Image

from hand1000.hands.detector import HandDetector
from tests.support.rendered_hands import rendered_hands


def test_landmarks_are_those_of_the_solution() -> None:
    from mediapipe.python.solutions.hands import Hands

    images = [
        np.asarray(Image.fromarray(hand.pixels).resize((300, 300), Image.Resampling.BICUBIC))
        for hand in rendered_hands()
    ]
    images.append(np.concatenate([images[0], images[1]], axis=1))
    numbers = []
    with Hands(static_image_mode=True, max_num_hands=2) as solution, HandDetector(0.5, 2) as detector:
        for image in images:
            results, detection = solution.process(np.ascontiguousarray(image)), detector.detect_with_scores(image)
            landmarks = [
                [[point.x, point.y, point.z] for point in hand.landmark] for hand in results.multi_hand_landmarks or []
            ]
            assert [hand.landmarks.tolist() for hand in detection.hands] == landmarks
            labels = [hand.classification[0] for hand in results.multi_handedness or []]
            assert [hand.score for hand in detection.hands] == [label.score for label in labels]
            assert [hand.right for hand in detection.hands] == [label.label == "Left" for label in labels]
            assert 0.5 <= detection.palm_score <= 1 and 0.5 <= detection.presence <= 1
            numbers.append(len(landmarks))
    assert numbers == [1, 1, 1, 1, 1, 2]


def test_scores_of_an_image_do_not_outlive_it() -> None:
    hand, blank = rendered_hands()[0].pixels, np.full((64, 64, 3), 127, np.uint8)
    with HandDetector(0.5, 2) as detector:
        first = detector.detect_with_scores(hand)
        assert detector.detect_with_scores(blank) == type(first)([], 0.0, 0.0)
        second = detector.detect_with_scores(hand)
    assert (first.palm_score, first.presence) == (second.palm_score, second.presence)
    assert first.presence > 0.5


def test_presence_below_the_threshold_is_reported() -> None:
    """A palm that the landmark network refuses has no hand, but a score."""
    generator = np.random.default_rng(1)
    image = np.asarray(Image.fromarray(generator.integers(0, 256, (8, 8, 3)).astype(np.uint8)).resize((256, 256)))
    with HandDetector(0.0, 1) as detector:
        detection = detector.detect_with_scores(image)
    assert not detection.hands and 0 < detection.presence < 0.5 < detection.palm_score
