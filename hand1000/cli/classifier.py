"""The command `hand1000 classifier`, which trains a gesture classifier on annotated landmarks."""

import argparse
from pathlib import Path

from hand1000.cli.options import integer_type


def add_classifier_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `classifier` and its actions to the commands of `hand1000`."""
    classifier = commands.add_parser("classifier", help="train a gesture classifier on your own data set")
    actions = classifier.add_subparsers(required=True, metavar="ACTION")
    train = actions.add_parser(
        "train",
        help="train on the landmarks that a data set annotates",
        description="Train a gesture classifier on HaGRID's hand_landmarks, for evaluation.gesture_classifier.",
    )
    train.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="images and annotations in HaGRID's layout"
    )
    train.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder for the classifier")
    train.add_argument("--steps", type=integer_type(1, 100_000), default=2000, help="training steps (default: 2000)")
    train.add_argument("--seed", type=integer_type(0, 2**31 - 1), default=0, help="random seed (default: 0)")
    train.set_defaults(run=_train)


def _train(options: argparse.Namespace) -> None:
    from hand1000.core.errors import Hand1000Error

    if options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        raise Hand1000Error(f"{options.out}: exists already; name a new folder")
    from hand1000.core.errors import translate_write_errors
    from hand1000.core.progress import ProgressBar
    from hand1000.data.annotated_hands import read_annotated_hands
    from hand1000.hands.annotated_training import train_on_annotations
    from hand1000.storage.files import write_json
    from hand1000.storage.sources import open_source

    annotated = read_annotated_hands(open_source(options.data), ProgressBar("reading", unit=" hands"))
    trained = train_on_annotations(
        annotated, seed=options.seed, steps=options.steps, on_progress=ProgressBar("training", unit=" steps")
    )
    command = f"hand1000 classifier train --data {options.data} --out {options.out}"
    with translate_write_errors(options.out):
        trained.classifier.save_pretrained(options.out)
        write_json(
            options.out / "training.json",
            {"command": f"{command} --steps {options.steps} --seed {options.seed}", **trained.report},
        )
    test = trained.report["test"]
    for reason, count in trained.report["skipped"].items():
        print(f"skipped     {count}: {reason}")
    for gesture, accuracy in test["accuracy_by_gesture"].items():
        print(f"{gesture:24}{accuracy:.3f}")
    print(f"accuracy    {test['accuracy']} of {test['hands']} hands of people it did not learn from")
    print(f"use it      evaluation.gesture_classifier: {options.out}")
