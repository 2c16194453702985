"""The forms of an export and the checks of its target, which need no model."""

from pathlib import Path
from typing import Literal

from hand1000.config.sampler import check_call_values
from hand1000.core.errors import Hand1000Error
from hand1000.gestures import gesture_phrase

Form = Literal["diffusers", "single-file", "lora", "lora-diffusers"]
Precision = Literal["float32", "float16"]
"""Type of an export's numbers."""


def check_target(form: Form, out: Path, *, mu: float | None = None, gesture: str | None = None) -> None:
    """Check what can be checked before a model is downloaded and loaded.

    Raises:
        Hand1000Error: `out` exists or has the wrong suffix, `mu` is out of range, or HaGRID has no such gesture.
    """
    check_call_values(mu=mu)
    if gesture is not None:
        gesture_phrase(gesture)
    if out.exists():
        raise Hand1000Error(f"{out}: exists already; choose another name, or remove it")
    if form != "diffusers" and out.suffix != ".safetensors":
        raise Hand1000Error(f"{out}: the file's name must end in .safetensors")
    if form == "diffusers" and out.suffix in (".safetensors", ".ckpt"):
        raise Hand1000Error(
            f"{out}: --to diffusers writes a folder; choose --to single-file, or a name without a suffix"
        )
