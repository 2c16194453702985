"""The recipe of `hand1000/assets/gesture-classifier`.

    python -m hand1000.hands.train_classifier --out hand1000/assets/gesture-classifier

It learns from sampled hands and from those that MediaPipe detects in rendered images, is calibrated under one setting
of the renderer, and is measured under others, none of which it learned from.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

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
    RenderSetting,
    blur_and_dim,
    degrade,
    detect_rendered_hands,
    keep,
    mirror,
    rotate,
    shrink,
)
from hand1000.storage.files import write_json

TRAIN = (RenderSetting("train", 64, {"64 px": keep, "64 px, degraded": degrade}),)
CALIBRATION = RenderSetting("calibration", 80, {"80 px, wide poses": keep, "80 px, degraded": degrade}, wide=True)
TEST = (
    RenderSetting(
        "test",
        96,
        {
            "96 px": keep,
            "96 px, blurred and dim": blur_and_dim,
            "96 px, mirrored": mirror,
            "96 px, rotated by 20 degrees": rotate,
            "96 px, hand half as large": shrink,
        },
    ),
)
"""Settings of the renderer. A test has a size, people and degradations that no training image has."""


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
    parser.set_defaults(train=5, test=3)
    parser.add_argument("--cache", type=Path, help="folder that keeps the detected hands for the next run")
    parser.add_argument("--steps", type=int, default=TrainingPlan.steps, help="training steps")
    options = parser.parse_args(arguments)
    seed = options.seed
    train = _detect(TRAIN, options.train, seed, options.cache)
    calibration = LabeledHands.concatenate(
        list(_detect((CALIBRATION,), options.test, seed + 1, options.cache).values())
    )
    classifier = train_classifier(
        LabeledHands.concatenate(list(train.values())),
        make_config(CLASSES),
        seed=seed,
        plan=TrainingPlan(steps=options.steps),
        on_progress=ProgressBar("training", unit=" steps"),
    )
    classifier = calibrate(classifier, calibration)
    classifier.save_pretrained(options.out)
    test = _detect(TEST, options.test, seed + 2, options.cache)
    results = {name: measure_accuracy(classifier, hands) for name, hands in test.items()}
    version_1 = classifier.restricted_to(HAGRID_V1)
    results_v1 = {
        name: measure_accuracy(version_1, hands.of_gestures(version_1.classes)) for name, hands in test.items()
    }
    report = {
        "command": f"python -m hand1000.hands.train_classifier --out {options.out} --seed {seed} "
        f"--train {options.train} --test {options.test} --steps {options.steps}",
        "data": "sampled hands and rendered images; no photograph",
        "min_detection_confidence": CONFIDENCE,
        "train": {
            name: {"hands": len(hands), "images_without_hand": hands.images_without_hand}
            for name, hands in train.items()
        },
        "calibration": {"hands": len(calibration), "setting": " and ".join(CALIBRATION.changes)},
        "temperature": classifier.config.temperature,
        "reject_below": classifier.config.reject_below,
        "test": results,
        "test_of_version_1": results_v1,
    }
    write_json(options.out / "training.json", report)
    for name in results:
        print(f"{name:32}{results_v1[name]['accuracy']} {results[name]['accuracy']}", file=sys.stderr)


def _detect(settings: Sequence[RenderSetting], count: int, seed: int, cache: Path | None) -> dict[str, LabeledHands]:
    """Detect hands of all classes; arbitrary hands only among the wide poses, since the renderer's make any gesture."""
    hands: dict[str, LabeledHands] = {}
    for setting in settings:
        counts = {name: count for name in CLASSES if name != NO_GESTURE}
        if setting.wide:
            counts[NO_GESTURE] = 3 * count
        files = {name: cache / f"{name}-{seed}-{count}.npz" for name in setting.changes} if cache else {}
        if not files or not all(path.is_file() for path in files.values()):
            on_progress = ProgressBar(setting.name, unit=" images")
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
