"""Training of the gesture classifier on a data set's own landmarks, HaGRID's `hand_landmarks`, which have no depth."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from hand1000.core.errors import Hand1000Error
from hand1000.core.progress import ProgressCallback, noop_callback
from hand1000.data.annotated_hands import AnnotatedHands
from hand1000.gestures import NO_GESTURE
from hand1000.hands.classifier import CLASSES, GestureClassifier, hand_class, make_config
from hand1000.hands.classifier_training import (
    LabeledHands,
    TrainingPlan,
    calibrate,
    measure_accuracy,
    train_classifier,
)
from hand1000.hands.gesture_poses import POSES

MIN_HANDS = 20
"""Number of training hands below which a gesture is left out."""

TEST_SHARE, HELD_OUT_SHARE = 0.1, 0.2
"""Shares of the people: those of the test, and those of the test and of the calibration together."""

SAMPLED_SHARE = 0.3
"""Share of each batch that is sampled, which also gives the classifier hands without a gesture."""


@dataclass(frozen=True)
class TrainedOnAnnotations:
    """A classifier, and what `training.json` says about its data and its accuracy on people it did not learn from."""

    classifier: GestureClassifier
    report: dict[str, Any]


def train_on_annotations(
    annotated: AnnotatedHands, *, seed: int, steps: int = 2000, on_progress: ProgressCallback = noop_callback
) -> TrainedOnAnnotations:
    """Train, calibrate and test a classifier on three disjoint groups of people.

    Raises:
        Hand1000Error: There are too few hands or people.
    """
    test = annotated.held_out(TEST_SHARE)
    calibration = annotated.held_out(HELD_OUT_SHARE) & ~test
    groups = {"training": ~(test | calibration), "calibration": calibration, "test": test}
    counts = Counter(map(hand_class, np.array(annotated.labels)[groups["training"]].tolist()))
    gestures = [name for name in CLASSES if name != NO_GESTURE and counts[name] >= MIN_HANDS]
    if len(gestures) < 2:
        found = ", ".join(f"{gesture} {count}" for gesture, count in sorted(counts.items())) or "none"
        raise Hand1000Error(
            f"annotated training hands: {found}; a classifier needs at least {MIN_HANDS} of each of two gestures"
        )
    classes = (*gestures, NO_GESTURE)
    hands = {name: _label_hands(annotated, mask, classes) for name, mask in groups.items()}
    if empty := [name for name, part in hands.items() if not len(part)]:
        raise Hand1000Error(
            f"{len(set(annotated.people))} people with annotated hands: none is left for {' and '.join(empty)}; "
            "annotate images of more people, each with its user_id"
        )
    config = make_config(classes, dimensions=2)
    plan = TrainingPlan(steps=steps, sampled_share=SAMPLED_SHARE)
    classifier = train_classifier(hands["training"], config, seed=seed, plan=plan, on_progress=on_progress)
    classifier = calibrate(classifier, hands["calibration"])
    return TrainedOnAnnotations(
        classifier,
        {
            "people": len(set(annotated.people)),
            "hands": {name: int(mask.sum()) for name, mask in groups.items()},
            "skipped": annotated.skipped,
            "left_out": sorted(set(map(hand_class, annotated.labels)) - set(classes)),
            "temperature": classifier.config.temperature,
            "reject_below": classifier.config.reject_below,
            "test": measure_accuracy(classifier, hands["test"]),
        },
    )


def _label_hands(annotated: AnnotatedHands, mask: np.ndarray, classes: tuple[str, ...]) -> LabeledHands:
    """Return some hands as a classifier sees them; one whose side nothing says counts once for each side."""
    labels = np.array([hand_class(label) for label in annotated.labels])
    rows = np.flatnonzero(mask & np.isin(labels, classes))
    points = annotated.points[rows]
    sides = np.array([_usual_palm(label) for label in labels[rows].tolist()], int) * _chirality(points)
    sides = np.where(sides == 0, annotated.sides[rows], sides)
    unknown = np.flatnonzero(sides == 0)
    order = np.concatenate([np.arange(len(rows)), unknown])
    right = np.concatenate([sides >= 0, np.zeros(len(unknown), bool)])
    landmarks = np.concatenate([points, np.zeros((*points.shape[:2], 1), np.float32)], axis=2)[order]
    return LabeledHands(landmarks, right, labels[rows][order].tolist())


def _chirality(points: np.ndarray) -> np.ndarray:
    """Return 1 for hands (N, 21, 2) that look like a right hand's palm or a left hand's back, else -1: (N,) int."""
    index, pinky = (points[:, joint] - points[:, 0] for joint in (5, 17))
    return np.where(index[:, 0] * pinky[:, 1] < index[:, 1] * pinky[:, 0], 1, -1)


def _usual_palm(gesture: str) -> int:
    """Return 1 if nearly all people show their palm with this gesture, -1 if they show the back, else 0.

    HaGRID version 2 does not say which hand it is; the palm and the order of the knuckles in the image do.
    """
    views = POSES[gesture].views if gesture in POSES else ()
    for side, facing in ((1, 0.0), (-1, 180.0)):
        share = sum(view.share for view in views if view.facing[0] == facing and view.facing[1] <= 30.0)
        if share >= 0.9 and all(view.up == "fingers" for view in views):
            return side
    return 0
