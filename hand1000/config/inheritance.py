"""Inheritance of settings: a mapping states its preset and what differs from it."""

import copy
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hand1000.core.documents import read_yaml

PRESETS = Path(__file__).parent / "presets"


def list_presets() -> list[str]:
    """Return the names of the presets that ship, sorted."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def load_preset(name: Any) -> dict[str, Any]:
    """Read a preset completely, with everything that it inherits.

    Raises:
        ValueError: There is no such preset.
    """
    if name not in list_presets():
        raise ValueError(f"preset: unknown preset {name!r}; choose one of {', '.join(list_presets())}")
    return copy.deepcopy(_read_preset(name))


@functools.cache
def _read_preset(name: str) -> dict[str, Any]:
    return resolve_preset(read_yaml(PRESETS / f"{name}.yaml"))


def resolve_preset(values: Any) -> Any:
    """Replace the key `preset` of a mapping by the fields of that preset, which the mapping's own fields override.

    Anything but a mapping with this key is returned as it is.

    Raises:
        ValueError: There is no such preset.
    """
    if not isinstance(values, Mapping) or "preset" not in values:
        return values
    own = {name: value for name, value in values.items() if name != "preset"}
    return merge_settings(load_preset(values["preset"]), own)


def merge_settings(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two mappings; sections are merged field by field, any other value of `changes` replaces that of `base`."""
    merged = {**base, **changes}
    for name in base.keys() & changes.keys():
        if isinstance(base[name], Mapping) and isinstance(changes[name], Mapping):
            merged[name] = merge_settings(base[name], changes[name])
    return merged
