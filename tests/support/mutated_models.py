"""Ways in which the folder of a model may be damaged, each by name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

Mutation = Callable[[Path], None]
"""Damages the folder of one part of a model in place."""


def weights_of(part: Path) -> Path:
    """The only file of weights of a part."""
    (path,) = part.glob("*.safetensors")
    return path


def rewrite(part: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """Change the tensors of a part."""
    with safe_open(weights_of(part), "pt") as file:
        tensors = {name: file.get_tensor(name).clone() for name in sorted(file.keys())}
    change(tensors)
    save_file(tensors, weights_of(part), metadata={"format": "pt"})


def edit_config(part: Path, **values: Any) -> None:
    """Change values of the configuration of a part; None removes one."""
    (path,) = (path for path in part.glob("*config.json") if path.name in ("config.json", "scheduler_config.json"))
    config = json.loads(path.read_text()) | values
    path.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))


def _first(tensors: dict[str, torch.Tensor]) -> str:
    return next(name for name, value in tensors.items() if value.is_floating_point() and value.numel() > 1)


def _poison(value: float) -> Mutation:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[_first(tensors)].view(-1)[-1] = value

    return lambda part: rewrite(part, change)


def _retype(kind: torch.dtype) -> Mutation:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[_first(tensors)] = tensors[_first(tensors)].to(kind)

    return lambda part: rewrite(part, change)


def _replace_by_folder(part: Path) -> None:
    path = weights_of(part)
    path.unlink()
    path.mkdir()


def _write(name: str, data: bytes) -> Mutation:
    def write(part: Path) -> None:
        (part / name).write_bytes(data)

    return write


def _pickle(part: Path) -> None:
    weights_of(part).rename(part / "pytorch_model.bin")


def _reshape(tensors: dict[str, torch.Tensor]) -> None:
    tensors[_first(tensors)] = torch.cat([tensors[_first(tensors)]] * 2)


def _cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


WEIGHT_MUTATIONS: dict[str, tuple[Mutation, str]] = {
    "missing": (lambda part: rewrite(part, lambda tensors: tensors.pop(_first(tensors))), "missing tensors: "),
    "unexpected": (
        lambda part: rewrite(part, lambda tensors: tensors.update(another=torch.zeros(2))),
        "unexpected tensors: another",
    ),
    "another shape": (lambda part: rewrite(part, _reshape), "shape"),
    "NaN": (_poison(float("nan")), "NaN or infinite"),
    "infinite": (_poison(float("-inf")), "NaN or infinite"),
    "mixed types": (_retype(torch.float64), "several types"),
    "integers": (_retype(torch.int8), "int8|I8"),
    "all missing": (lambda part: rewrite(part, lambda tensors: tensors.clear()), "missing tensors: |not a safetensors"),
    "no file": (lambda part: weights_of(part).unlink(), "no safetensors file"),
    "a pickle": (_pickle, "pickle"),
    "cut short": (lambda part: _cut(weights_of(part), weights_of(part).stat().st_size - 9), "not a safetensors file"),
    "empty": (lambda part: _cut(weights_of(part), 0), "not a safetensors file"),
    "no header": (lambda part: _cut(weights_of(part), 9), "not a safetensors file"),
    "text": (lambda part: _write(weights_of(part).name, b"version https://git-lfs")(part), "not a safetensors file"),
    "a folder": (_replace_by_folder, "no safetensors file"),
}
"""How weights are damaged, and what the error says."""

CONFIG_MUTATIONS: dict[str, Mutation] = {
    "no config": lambda part: (part / "config.json").unlink(),
    "no JSON": _write("config.json", b'{"a": '),
    "a list": _write("config.json", b"[1]"),
    "empty object": _write("config.json", b"{}"),
    "not UTF-8": _write("config.json", b'{"a": "\xff"}'),
    "nested deeply": _write("config.json", b'{"a":' * 900 + b"1" + b"}" * 900),
}
"""How the configuration of a part with weights is damaged."""
