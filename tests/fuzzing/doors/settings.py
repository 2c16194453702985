"""Doors of YAML files: settings and the inputs files of workflows."""

import random
from pathlib import Path
from typing import Any

import yaml

from hand1000.config.inputs import load_config
from hand1000.config.settings import load_settings
from tests.fuzzing.harness import Door
from tests.fuzzing.mutations import damage_bytes, damage_text, damage_value

REPOSITORY = Path(__file__).parents[3]
PRESETS = sorted((REPOSITORY / "hand1000/config/presets").glob("*.yaml"))
INPUTS = sorted((REPOSITORY / "workflows/configs").glob("*.yaml"))
TRAPS = (
    "a: &a [*a]",
    "a: &a {<<: *a}",
    "<<: 5",
    "<<: [1]",
    "preset: demo\npreset: fast",
    "? [a, b]\n: 1",
    "? {a: b}\n: 1",
    "!!python/object/apply:os.getcwd []",
    "!!binary abc",
    "!!set {a, b}",
    "!!timestamp x",
    "!!int x",
    "a: 2026-99-99",
    "a: 1:99:99",
    "a: 0b",
    "a: 0x",
    "%YAML 9.9\n---\na: 1",
    "%TAG ! !\n--- !",
    "--- a\n--- b",
    "*a",
    "&a",
    "a: !",
    "- " * 3000,
    "[" * 3000,
    "{a: " * 3000,
    "a: " + "[" * 50 + "]" * 50,
    "\n".join([f"a0: &a0 {list(range(9))}", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9))]),
    "",
    "\n",
    "# nothing",
    "---",
    "null",
    "5",
    "[]",
    "{}",
    "\t",
    "preset: demo\nstage2: {mu: yes}",
    "preset: demo\ngeneration: {mu: yes}",
    "seed: " + "9" * 6000,
    "seed: " + "1_" * 3000,
    "seed: 1e400",
    "a" * 100_000,
)


def dump(value: Any) -> bytes:
    """Return a value as YAML, half surrogates as they are."""
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True).encode("utf-8", "surrogatepass")


def make_yaml(rng: random.Random, files: list[Path]) -> bytes:
    """Return a damaged copy of one of the files, or a trap of YAML."""
    data = files[rng.randrange(len(files))].read_bytes()
    kind = rng.randrange(10)
    if kind == 0:
        return TRAPS[rng.randrange(len(TRAPS))].encode()
    if kind == 1:
        return damage_bytes(rng, data)
    if kind < 4:
        return damage_text(rng, data.decode()).encode("utf-8", "surrogatepass")
    if kind == 4:
        return data + b"\n" + TRAPS[rng.randrange(len(TRAPS))].encode()
    return dump(damage_value(rng, yaml.safe_load(data)))


def _load(read: Any) -> Any:
    def call(data: bytes, folder: Path) -> None:
        path = folder / "file.yaml"
        path.write_bytes(data)
        read(path)

    return call


DOORS = [
    Door("settings file", lambda rng: make_yaml(rng, PRESETS), _load(load_settings)),
    Door("inputs file", lambda rng: make_yaml(rng, INPUTS), _load(load_config)),
]
