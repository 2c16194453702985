"""The demo as a user starts it, with as little work as still passes through every stage."""

import subprocess
import sys
from pathlib import Path

import yaml

from hand1000.config.settings import load_settings

ROOT = Path(__file__).parents[2]
PYFLYTE = Path(sys.executable).with_name("pyflyte")


def inputs_file(folder: Path, test_images: int = 4) -> Path:
    """Write the demo's inputs, with all settings and little work, to a file in `folder`."""
    inputs = yaml.safe_load((ROOT / "workflows/configs/demo.yaml").read_text())
    inputs["images"] = 8
    inputs["settings"] = settings = load_settings("demo").model_dump(mode="json")
    settings["data"]["test_images"] = test_images
    settings["stage2"].update(
        fusion_steps=4, fusion_batch_size=4, embedding_steps=2, embedding_batch_size=2, checkpoint_every=2
    )
    settings["stage3"].update(steps=8, batch_size=4, checkpoint_every=2)
    settings["generation"].update(num_inference_steps=2, batch_size=2, num_images=6)
    settings["evaluation"].update(general_images=4, other_gesture_images=2, export_images=4)
    path = folder / "inputs.yaml"
    path.write_text(yaml.safe_dump(inputs))
    return path


def command(folder: Path, *overrides: str, test_images: int = 4) -> list[str]:
    """Runs it with its artifact root in `folder`."""
    workflow = ["workflows/train_gesture.py", "train_gesture"]
    inputs = ["--inputs-file", str(inputs_file(folder, test_images)), "--root", str(folder / "root")]
    return [str(PYFLYTE), "run", *workflow, *inputs, *overrides]


def run(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end, whatever that is."""
    return subprocess.run(command(folder, *overrides), cwd=ROOT, capture_output=True, text=True, timeout=280)
