"""HandRefiner with the ControlNet that ships, on rendered hands that no person has: it mends them and nothing else."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from hand1000.baselines.hand_refiner import MAX_HANDS, hand_mask, hand_refiner_generator
from hand1000.config.comparison import HandRefinerSettings
from hand1000.evaluation.anatomy import fit_anatomy
from hand1000.gestures import gesture_phrase
from hand1000.hands.correction import correct_hand
from hand1000.hands.detector import Hand, HandDetector
from hand1000.models.base_model import load_base_model
from hand1000.pipelines.controlnet import load_controlnet
from hand1000.pipelines.generation import GenerationRequest
from tests.support.malformed_hands import as_it_is, malformed, short_fingers, swapped_fingers
from tests.support.rendered_hands import rendered_hands

ROOT = Path(__file__).resolve().parents[2]
REAL, FIRST_SPOILT = range(60), 200
CONFIDENCE = 0.5
"""Of the measures; what is to be mended is looked for with less."""


def hands_in(images: Sequence[np.ndarray], confidence: float = CONFIDENCE) -> list[list[Hand]]:
    with HandDetector(confidence, MAX_HANDS) as detector:
        return [detector.detect(image) for image in images]


def landmarks_of(found: Sequence[Sequence[Hand]]) -> np.ndarray:
    return np.stack([hand.landmarks for hands in found for hand in hands])


def mended(gesture: str, spoil: Callable, count: int) -> tuple[float, float]:
    """By how much, of `count` hands, the detection rate and the share of plausible hands rise."""
    inputs = yaml.safe_load((ROOT / "workflows/configs/compare.yaml").read_text())
    settings = HandRefinerSettings.model_validate(inputs["settings"]["hand_refiner"])
    pictures = malformed(spoil, range(FIRST_SPOILT, FIRST_SPOILT + count), 64, gesture)
    before = [picture.pixels for picture in pictures]
    orders = [
        GenerationRequest(f"{number}.png", f"{picture.caption}, {gesture_phrase(gesture)}", number, gesture)
        for number, picture in enumerate(pictures)
    ]
    base = load_base_model(str(ROOT / "models/small-base"))
    controlnet = load_controlnet(str(ROOT / settings.controlnet))
    system = hand_refiner_generator(lambda _: map(Image.fromarray, before), base, controlnet, settings)
    after = [np.asarray(image) for image in system(orders)]
    changed = 0
    for one, other, hands in zip(before, after, hands_in(before, settings.min_detection_confidence), strict=True):
        proper = [Hand(correct_hand(hand.landmarks), hand.score, hand.right) for hand in hands]
        mask = hand_mask([*hands, *proper], len(one))
        assert (one[~mask] == other[~mask]).all()
        changed += int((one != other).any())
    assert changed > len(before) / 2
    anatomy = fit_anatomy(landmarks_of(hands_in([one.pixels for one in malformed(as_it_is, REAL, 64, gesture)])))
    assert anatomy is not None
    (rate, wrong), (new_rate, still_wrong) = (
        (sum(map(bool, found)) / len(found), anatomy.implausible_rate(landmarks_of(found)))
        for found in (hands_in(before), hands_in(after))
    )
    print(
        f"{spoil.__name__}: detected {rate:.3f}, then {new_rate:.3f}; implausible {wrong:.3f}, then {still_wrong:.3f}"
    )
    return new_rate - rate, wrong - still_wrong


def test_malformed_hands_are_mended_and_the_rest_of_the_picture_is_left_alone() -> None:
    """MediaPipe finds each of the palms, of which none may be lost, and misses some fours, of which fewer may be."""
    detected, plausible = zip(mended("palm", swapped_fingers, 24), mended("four", short_fingers, 48), strict=True)
    assert detected[0] >= 0 and detected[1] > 0.03 and min(plausible) > 0.05


def test_what_is_malformed_becomes_proper_and_what_is_proper_stays() -> None:
    (hand,) = hands_in([rendered_hands()[0].pixels])[0]
    proper = hand.landmarks
    assert np.abs(correct_hand(proper) - proper).max() < 0.02
    lengths = np.linalg.norm(np.diff(proper[8:13], axis=0), axis=1)[1:]
    for factor in (0.4, 2.0):
        wrong = proper.copy()
        wrong[9:13] = proper[9] + factor * (proper[9:13] - proper[9])
        found = np.linalg.norm(np.diff(correct_hand(wrong)[8:13], axis=0), axis=1)[1:]
        assert 0.7 < found.sum() / lengths.sum() < 1.4
    spread = proper.copy()
    turn = np.radians(70)
    turn = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    spread[5:9, :2] = proper[5, :2] + (proper[5:9, :2] - proper[5, :2]) @ turn.T
    directions = [points[8, :2] - points[5, :2] for points in (proper, spread, correct_hand(spread))]
    was, wrong, now = (np.degrees(np.arctan2(*direction)) for direction in directions)
    assert abs(wrong - was) > 60 and abs(now - was) < 30
    # It does not depend on where and how large the hand is.
    assert np.allclose(correct_hand(3 * spread + 1), 3 * correct_hand(spread) + 1, atol=1e-4)
