"""What one model of several gestures costs each of them: its accuracy in a model of its own and in the mixture.

    .venv/bin/python -m benchmarks.mixture [--gesture call,four,...] [--images 200] [--steps 9000] [--root artifacts]

The demo, but without each image's own hand and guided all along, once for each gesture and once for all; parts that
are finished under the root are not computed again. Each accuracy is over as many held-out prompts,
`generation.num_images` of a gesture. Prints a Markdown table.
"""

import argparse
import json
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

SIX = "call,four,like,mute,ok,palm"
"""Those of the paper."""
PLAIN: dict[str, dict[str, Any]] = {
    "data": {"test_images": 100},
    "stage1": {"pose_components": 0},
    "generation": {"autoguidance_scale": 2.2, "autoguidance_interval": [0.0, 1.0], "num_images": 100},
}
"""What the table in docs/method.md was made with."""


def accuracies(inputs: dict[str, Any], stage3: dict[str, Any]) -> dict[str, float]:
    """Of a run of the demo's `inputs`, the tuned model's accuracy by gesture; what runs have in common is made once."""
    from hand1000.config.settings import Settings
    from hand1000.storage.artifacts import open_store
    from tasks.context import address
    from workflows.train_gesture import train_gesture

    changes = PLAIN | {"stage3": stage3}
    settings = {
        name: section | changes.get(name, {}) if isinstance(section, dict) else section
        for name, section in inputs["settings"].items()
    }
    done = train_gesture(**(inputs | {"settings": Settings.model_validate(settings)}))
    folder = open_store(inputs["root"]).fetch(address(done.report))
    kept = json.loads((folder / "registered.json").read_text())
    return {gesture: rates["tuned"] for gesture, rates in kept["gesture_accuracy"].items()}


def main() -> None:
    """Run the models and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gesture", default=SIX)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--root", default="artifacts")
    parser.add_argument("--steps", type=int, default=9000, help="of the mixture's Stage III")
    options = parser.parse_args()
    demo = yaml.safe_load(Path("workflows/configs/demo.yaml").read_text())
    inputs = {name: vars(options).get(name, value) for name, value in demo.items()}
    together = accuracies(inputs, {"steps": options.steps})
    rows = {
        gesture: (accuracies(inputs | {"gesture": gesture}, {})[gesture], together[gesture])
        for gesture in options.gesture.split(",")
    }
    rows["mean"] = (fmean(own for own, _ in rows.values()), fmean(mixed for _, mixed in rows.values()))
    print("| gesture | its own model | the mixture | difference |\n| --- | --- | --- | --- |")
    for gesture, (own, mixed) in rows.items():
        print(f"| {gesture} | {own:.3g} | {mixed:.3g} | {mixed - own:+.3f} |")


if __name__ == "__main__":
    main()
