"""Accuracy of each gesture in its own model and in one model of all gestures.

    .venv/bin/python -m benchmarks.mixture [--gesture call,four,...] [--images 200] [--steps 9000] [--root artifacts]

Runs the demo without each image's own hand and with guidance over the whole schedule, once for each gesture and once
for all; finished tasks under the root are reused. Each accuracy is over `generation.num_images` test prompts of the
gesture. Prints a Markdown table.
"""

import argparse
import json
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

PAPER_GESTURES = "call,four,like,mute,ok,palm"
"""The gestures of the paper."""
OVERRIDES: dict[str, dict[str, Any]] = {
    "data": {"test_images": 100},
    "stage1": {"pose_components": 0},
    "generation": {"autoguidance_scale": 2.2, "autoguidance_interval": [0.0, 1.0], "num_images": 100},
}
"""Settings of the table in docs/method.md, where they differ from the demo."""


def train_and_measure(inputs: dict[str, Any], stage3: dict[str, Any]) -> dict[str, float]:
    """Train with the demo's `inputs` and return the tuned model's accuracy by gesture."""
    from hand1000.config.settings import Settings
    from hand1000.storage.artifacts import open_store
    from tasks.context import address
    from workflows.train_gesture import train_gesture

    settings = inputs["settings"] | OVERRIDES | {"stage3": stage3}
    done = train_gesture(**(inputs | {"settings": Settings.model_validate(settings)}))
    folder = open_store(inputs["root"]).fetch(address(done.report))
    summary = json.loads((folder / "registered.json").read_text())
    return {gesture: rates["tuned"] for gesture, rates in summary["gesture_accuracy"].items()}


def main() -> None:
    """Run the models and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gesture", default=PAPER_GESTURES)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--root", default="artifacts")
    parser.add_argument("--steps", type=int, default=9000, help="steps of Stage III for the model of all gestures")
    options = parser.parse_args()
    demo = yaml.safe_load(Path("workflows/configs/demo.yaml").read_text())
    inputs = {name: vars(options).get(name, value) for name, value in demo.items()}
    mixture = train_and_measure(inputs, {"steps": options.steps})
    rows = {
        gesture: (train_and_measure(inputs | {"gesture": gesture}, {})[gesture], mixture[gesture])
        for gesture in options.gesture.split(",")
    }
    rows["mean"] = (fmean(own for own, _ in rows.values()), fmean(mixed for _, mixed in rows.values()))
    print("| gesture | its own model | the mixture | difference |\n| --- | --- | --- | --- |")
    for gesture, (own, mixed) in rows.items():
        print(f"| {gesture} | {own:.3g} | {mixed:.3g} | {mixed - own:+.3f} |")


if __name__ == "__main__":
    main()
