"""HandRefiner with the shipped ControlNet on rendered malformed hands: it repairs them and nothing else."""

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
from tests.support.malformed_hands import change_finger_lengths, normal_hand, render_malformed_hands, shorten_fingers

ROOT = Path(__file__).resolve().parents[2]
REAL, FIRST_MALFORMED = range(60), 200
CONFIDENCE = 0.5
"""Threshold of the detector that measures; the detector of the repair has a lower one."""


def detect_all(images: Sequence[np.ndarray], confidence: float = CONFIDENCE) -> list[list[Hand]]:
    with HandDetector(confidence, MAX_HANDS) as detector:
        return [detector.detect(image) for image in images]


def landmarks_of(detections: Sequence[Sequence[Hand]]) -> np.ndarray:
    return np.stack([hand.landmarks for hands in detections for hand in hands])


def improvement(gesture: str, deform: Callable, count: int) -> tuple[float, float]:
    """By how much the repair of `count` hands raises the detection rate and the share of plausible hands."""
    inputs = yaml.safe_load((ROOT / "workflows/configs/compare.yaml").read_text())
    settings = HandRefinerSettings.model_validate(inputs["settings"]["hand_refiner"])
    numbers = range(FIRST_MALFORMED, FIRST_MALFORMED + count)
    rendered = render_malformed_hands(deform, numbers, 64, gesture)
    before = [image.pixels for image in rendered]
    requests = [
        GenerationRequest(f"{number}.png", f"{image.caption}, {gesture_phrase(gesture)}", number, gesture)
        for number, image in enumerate(rendered)
    ]
    base = load_base_model(str(ROOT / "models/small-base"))
    controlnet = load_controlnet(str(ROOT / settings.controlnet))
    repair = hand_refiner_generator(lambda _: map(Image.fromarray, before), base, controlnet, settings)
    after = [np.asarray(image) for image in repair(requests)]
    changed = 0
    detections = detect_all(before, settings.min_detection_confidence)
    for original, repaired, hands in zip(before, after, detections, strict=True):
        corrected = [Hand(correct_hand(hand.landmarks), hand.score, hand.right) for hand in hands]
        mask = hand_mask([*hands, *corrected], len(original))
        assert (original[~mask] == repaired[~mask]).all()
        changed += int((original != repaired).any())
    assert changed > len(before) / 2
    real = [image.pixels for image in render_malformed_hands(normal_hand, REAL, 64, gesture)]
    anatomy = fit_anatomy(landmarks_of(detect_all(real)))
    assert anatomy is not None
    (rate, implausible), (rate_after, implausible_after) = (
        (sum(map(bool, hands)) / len(hands), anatomy.find_implausible(landmarks_of(hands)).mean())
        for hands in (detect_all(before), detect_all(after))
    )
    print(
        f"{deform.__name__}: detected {rate:.3f}, then {rate_after:.3f}; "
        f"implausible {implausible:.3f}, then {implausible_after:.3f}"
    )
    return rate_after - rate, implausible - implausible_after


def test_malformed_hands_are_repaired_and_nothing_else_changes() -> None:
    """MediaPipe detects all malformed palms, so their rate must not fall, and misses some malformed fours."""
    palms, fours = improvement("palm", change_finger_lengths, 24), improvement("four", shorten_fingers, 48)
    detected, plausible = zip(palms, fours, strict=True)
    assert detected[0] >= 0 and detected[1] > 0.03 and min(plausible) > 0.05
