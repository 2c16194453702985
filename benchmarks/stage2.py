"""What the two parts of Stage II add: the demo with both, with each alone, and with neither.

    .venv/bin/python -m benchmarks.stage2 [--gesture four] [--images 200] [--root artifacts]

The four runs share everything else, so what they have in common is computed once. Prints a Markdown table.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import yaml

VARIANTS: dict[str, dict[str, int]] = {
    "both": {},
    "fusion alone": {"refine_steps": 0},
    "refinement alone": {"fusion_steps": 0},
    "neither": {"fusion_steps": 0, "refine_steps": 0},
}


def measured(inputs: dict[str, Any], stage2: dict[str, int]) -> dict[str, dict[str, float | None]]:
    """The measures of a run whose Stage II differs by `stage2`."""
    from hand1000.settings import Settings
    from hand1000.storage.store import open_store
    from tasks.common import address
    from workflows.train_gesture import train_gesture

    settings: dict[str, Any] = inputs["settings"]
    changed = Settings.model_validate(settings | {"stage2": settings["stage2"] | stage2})
    done = train_gesture(**(inputs | {"settings": changed}))
    folder = open_store(inputs["root"]).fetch(address(done.report))
    return json.loads((folder / "registered.json").read_text())["measures"]


def main() -> None:
    """Run the variants and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gesture", default="four")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--root", default="artifacts")
    inputs = yaml.safe_load(Path("workflows/configs/demo.yaml").read_text()) | vars(parser.parse_args())
    found = {name: measured(inputs, stage2) for name, stage2 in VARIANTS.items()}
    names = list(found["both"])
    rows = {"base model": {name: found["both"][name]["base"] for name in names}}
    rows |= {variant: {name: values[name]["tuned"] for name in names} for variant, values in found.items()}
    print(f"| Stage II | {' | '.join(names)} |\n|{' --- |' * (len(names) + 1)}")
    for variant, values in rows.items():
        cells = ("–" if value is None else f"{value:.3g}" for value in values.values())
        print(f"| {variant} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
