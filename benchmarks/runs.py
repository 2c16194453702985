"""Whole runs of the demo with changed settings, and a table of what they measured."""

import argparse
import json
from pathlib import Path
from typing import Any

import yaml

Measures = dict[str, dict[str, float | None]]
"""By the measure's name, of `base` and of `tuned`."""


def demo_parser(description: str | None, gesture: str = "four") -> argparse.ArgumentParser:
    """A command line for what the demo's inputs may be told: --gesture, --images, --root."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gesture", default=gesture)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--root", default="artifacts")
    return parser


def demo_inputs(options: argparse.Namespace) -> dict[str, Any]:
    """The demo's inputs, with what `options` say of them."""
    inputs = yaml.safe_load(Path("workflows/configs/demo.yaml").read_text())
    return {name: vars(options).get(name, value) for name, value in inputs.items()}


def registered(inputs: dict[str, Any], **changes: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a run (docs/architecture.md, "Report") whose settings differ by `changes`, by section.

    What runs have in common is made once.
    """
    from hand1000.settings import Settings
    from hand1000.storage.store import open_store
    from tasks.common import address
    from workflows.train_gesture import train_gesture

    settings = {
        name: section | changes.get(name, {}) if isinstance(section, dict) else section
        for name, section in inputs["settings"].items()
    }
    done = train_gesture(**(inputs | {"settings": Settings.model_validate(settings)}))
    folder = open_store(inputs["root"]).fetch(address(done.report))
    return json.loads((folder / "registered.json").read_text())


def measured(inputs: dict[str, Any], **changes: dict[str, Any]) -> Measures:
    """The measures of such a run."""
    return registered(inputs, **changes)["measures"]


def print_table(title: str, found: dict[str, Measures]) -> None:
    """Print a Markdown table: the base model's measures, then those of each run."""
    first = next(iter(found.values()))
    rows = {"base model": {name: values["base"] for name, values in first.items()}}
    rows |= {run: {name: values[name]["tuned"] for name in first} for run, values in found.items()}
    print(f"| {title} | {' | '.join(first)} |\n|{' --- |' * (len(first) + 1)}")
    for run, values in rows.items():
        print(f"| {run} | {' | '.join('–' if value is None else f'{value:.3g}' for value in values.values())} |")
