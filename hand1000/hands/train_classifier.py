"""The recipe of `hand1000/assets/gesture-classifier`.

    python -m hand1000.hands.train_classifier --out hand1000/assets/gesture-classifier

It learns from sampled hands and from those that MediaPipe detects in rendered images, is calibrated under one setting
of the renderer, and is measured under others, none of which it learned from.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hand1000.core.progress import ProgressBar
from hand1000.gestures import HAGRID_V1, NO_GESTURE
from hand1000.hands.classifier import CLASSES, make_config
from hand1000.hands.classifier_training import (
    LabeledHands,
    TrainingPlan,
    calibrate,
    measure_accuracy,
    train_classifier,
)
from hand1000.hands.rendered_hands import (
    CONFIDENCE,
    Change,
    RenderSetting,
    blur_and_dim,
    compress,
    degrade,
    detect_rendered_hands,
    keep,
    mirror,
    rotate,
    shrink,
    turn,
)
from hand1000.storage.files import write_json

_LEARNED = (("{} px", keep), ("{} px, degraded", degrade), ("{} px, turned", turn))
_MEASURED = (
    ("{} px", keep),
    ("{} px, blurred and dim", blur_and_dim),
    ("{} px, mirrored", mirror),
    ("{} px, rotated by 20 degrees", rotate),
    ("{} px, hand half as large", shrink),
)


def _make_setting(name: str, size: int, changes: Sequence[tuple[str, Change]], samples: int = 16) -> RenderSetting:
    return RenderSetting(name, size, {title.format(size): change for title, change in changes}, samples=samples)


TRAIN = (
    _make_setting("train", 64, _LEARNED, 9),
    _make_setting("train", 80, _LEARNED, 9),
)
CALIBRATION = (
    _make_setting("calibration", 104, [("{} px", keep), ("{} px, turned", turn)]),
    RenderSetting("calibration", 104, {"104 px, wide poses": keep}, wide=True),
)
DEVELOPMENT = _make_setting("development", 96, _MEASURED)
TEST = _make_setting("test", 112, [*_MEASURED, ("{} px, strongly compressed", compress)])
"""Each setting has people and a size of its own. The test decided nothing, the development set did."""


def training_parser(description: str | None) -> argparse.ArgumentParser:
    """Options of a script that trains a network on rendered hands."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument(
        "--train", type=int, default=80, help="training images per gesture; arbitrary poses get three times as many"
    )
    parser.add_argument("--test", type=int, default=20, help="test images per gesture, of other people")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Render, detect, train, calibrate, measure under unseen settings, and write the classifier and `training.json`."""
    parser = training_parser(__doc__)
    parser.set_defaults(train=14, test=8)
    parser.add_argument("--cache", type=Path, help="folder that keeps the detected hands for the next run")
    parser.add_argument("--steps", type=int, default=TrainingPlan.steps, help="training steps")
    options = parser.parse_args(arguments)
    seed, cache, few = options.seed, options.cache, max(1, options.test // 2)
    more = {"mute": 2, NO_GESTURE: 3}
    train = _detect(TRAIN, _count(options.train, more), seed, cache)
    calibration = LabeledHands.concatenate(list(_detect(CALIBRATION, _count(few, more), seed + 1, cache).values()))
    classifier = train_classifier(
        LabeledHands.concatenate(list(train.values())),
        make_config(CLASSES),
        seed=seed,
        plan=TrainingPlan(steps=options.steps),
        on_progress=ProgressBar("training", unit=" steps"),
    )
    classifier = calibrate(classifier, calibration)
    classifier.save_pretrained(options.out)
    version_1 = classifier.restricted_to(HAGRID_V1)
    report: dict[str, Any] = {
        "command": f"python -m hand1000.hands.train_classifier --out {options.out} --seed {seed} "
        f"--train {options.train} --test {options.test} --steps {options.steps}",
        "data": "sampled hands and rendered images; no photograph",
        "min_detection_confidence": CONFIDENCE,
        "train": {
            name: {"hands": len(hands), "images_without_hand": hands.images_without_hand}
            for name, hands in train.items()
        },
        "calibration": {
            "hands": len(calibration),
            "setting": " and ".join(name for setting in CALIBRATION for name in setting.changes),
        },
        "temperature": classifier.config.temperature,
        "reject_below": classifier.config.reject_below,
    }
    for part, setting, count, offset in (("development", DEVELOPMENT, few, 2), ("test", TEST, options.test, 3)):
        detected = _detect((setting,), _count(count, {NO_GESTURE: 3}), seed + offset, cache)
        report[part] = {name: measure_accuracy(classifier, hands) for name, hands in detected.items()}
        restricted = {
            name: measure_accuracy(version_1, hands.of_gestures(version_1.classes)) for name, hands in detected.items()
        }
        report[f"{part}_of_version_1"] = restricted
        for name, measured in restricted.items():
            print(f"{name:32}{measured['accuracy']} {report[part][name]['accuracy']}", file=sys.stderr)
    write_json(options.out / "training.json", report)


def _count(count: int, more: Mapping[str, int]) -> dict[str, int]:
    """Number of images of each class, of some a multiple: a face misleads MediaPipe, and hands may do anything."""
    return {name: count * more.get(name, 1) for name in CLASSES}


def _detect(
    settings: Sequence[RenderSetting], counts: Mapping[str, int], seed: int, cache: Path | None
) -> dict[str, LabeledHands]:
    hands: dict[str, LabeledHands] = {}
    for setting in settings:
        count = min(counts.values())
        files = {name: cache / f"{name}-{seed}-{count}.npz" for name in setting.changes} if cache else {}
        if not files or not all(path.is_file() for path in files.values()):
            on_progress = ProgressBar(f"{setting.name}, {setting.size} px", unit=" images")
            hands |= detect_rendered_hands(setting, counts, seed=seed, on_progress=on_progress)
            for name, path in files.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                np.savez(path, **vars(hands[name]))
        else:
            hands |= {name: _load_hands(path) for name, path in files.items()}
    return hands


def _load_hands(path: Path) -> LabeledHands:
    with np.load(path) as arrays:
        return LabeledHands(
            arrays["landmarks"], arrays["right"], arrays["labels"].tolist(), int(arrays["images_without_hand"])
        )


if __name__ == "__main__":
    main()
