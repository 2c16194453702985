"""Weights in safetensors files: the one place that decides whether a file's tensors may be used.

A tensor that is missing, unknown, of another shape or type, or not finite is an error that names it and its file.
"""

import json
import os
import re
import struct
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hand1000.core.errors import Hand1000Error, escape_unprintable, one_line

if TYPE_CHECKING:
    import torch

_FLOATS = ("F64", "F32", "F16", "BF16")
BUFFERS = re.compile(r"(^|\.)(position_ids|num_batches_tracked|inv_freq|(attn|crossattention)\.(masked_)?bias)$")
"""Tensors that are not weights: of any type, and computed by later versions of the libraries that saved them."""

_MAX_LISTED = 3

_checked: dict[tuple[int, int], tuple[int, int]] = {}
"""Size and modification time of the files whose values were checked, by device and inode."""


def check_weights(path: Path, mixed: Collection[str] = ()) -> None:
    """Check the types and the values of all tensors of a safetensors file, once per process while it does not change.

    Args:
        path: The file. Its tensors are read one by one.
        mixed: Parts of names whose tensors may have another floating-point type than the rest.

    Raises:
        Hand1000Error: The file is missing or malformed, has floating-point tensors of several types or tensors of a
            quantized type, or a value is NaN or infinite.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        status = path.stat()
        identity, state = (status.st_dev, status.st_ino), (status.st_size, status.st_mtime_ns)
        with safe_open(path, "pt") as file:
            types = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
            _check_types(path, types, mixed)
            if _checked.get(identity) == state:
                return
            for name, kind in types.items():
                tensor = file.get_tensor(name)
                # One pass without a copy: NaN and infinity reach the smallest or the largest value.
                if kind in _FLOATS and tensor.numel() and not torch.stack(torch.aminmax(tensor)).isfinite().all():
                    raise Hand1000Error(
                        f"{path}: the tensor {_name(name)} has values that are NaN or infinite; restore the file from "
                        "a copy"
                    )
    except FileNotFoundError:
        raise Hand1000Error(f"{path}: no such file") from None
    except (OSError, SafetensorError, ValueError) as error:
        raise Hand1000Error(f"{path}: not a safetensors file: {one_line(error)[:200]}") from error
    _checked[identity] = state


def read_tensors(path: Path, kind: str, remedy: str) -> "dict[str, torch.Tensor]":
    """Read the checked tensors of a safetensors file that holds `kind`; `remedy` ends the error's sentence.

    Raises:
        Hand1000Error: See `check_weights`.
    """
    from safetensors.torch import load_file

    try:
        check_weights(path)
        return load_file(path)
    except Hand1000Error as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise Hand1000Error(f"{path}: cannot be loaded as {kind}: {reason}; {remedy}") from error


def serialize_tensors(tensors: "Mapping[str, torch.Tensor]", metadata: Mapping[str, str]) -> bytes:
    """Return the safetensors file of `tensors` with `metadata`; equal content gives equal bytes.

    safetensors itself writes the keys of the metadata in an order that differs between processes.
    """
    from safetensors.torch import save

    plain = save(dict(tensors))
    (length,) = struct.unpack_from("<Q", plain)
    header = {"__metadata__": dict(sorted(metadata.items()))} | json.loads(plain[8 : 8 + length])
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + plain[8 + length :]


def load_weights(module: Any, path: Path, kind: str, remedy: str) -> None:
    """Load a safetensors file into a module that has exactly these tensors, as `kind`.

    Raises:
        Hand1000Error: See `check_weights`; or a tensor is missing, unexpected or of another shape.
    """
    tensors = read_tensors(path, kind, remedy)
    require_same_tensors(module.state_dict(), tensors, str(path), kind)
    module.load_state_dict(tensors)


def require_same_tensors(
    expected: "Mapping[str, torch.Tensor]", tensors: "Mapping[str, torch.Tensor]", source: str, kind: str
) -> None:
    """Raise a Hand1000Error unless the `tensors` of `source` have the names and shapes of the `expected` ones."""
    wrong = [
        (name, tuple(value.shape), tuple(expected[name].shape))
        for name, value in tensors.items()
        if name in expected and value.shape != expected[name].shape
    ]
    require_complete(source, kind, expected.keys() - tensors.keys(), tensors.keys() - expected.keys(), wrong)


def require_complete(
    source: str,
    kind: str,
    missing: Iterable[str],
    unexpected: Iterable[str],
    wrong_shapes: Iterable[tuple[str, Any, Any]],
) -> None:
    """Raise a Hand1000Error that names the tensors of `source` that are missing, unexpected or of another shape.

    A wrong shape is the tensor's name, the shape in the file and that of the model.
    """
    shapes = [f"{_name(name)} ({_shape(found)}, not {_shape(shape)})" for name, found, shape in wrong_shapes]
    faults = [
        f"{title}: {', '.join(names[:_MAX_LISTED])}" + (f" and {len(names) - _MAX_LISTED} more" * (len(names) > 3))
        for title, names in (
            ("missing tensors", sorted(map(_name, missing))),
            ("unexpected tensors", sorted(map(_name, unexpected))),
            ("tensors of another shape", sorted(shapes)),
        )
        if names
    ]
    if faults:
        raise Hand1000Error(f"{source}: cannot be loaded as {kind}: {'; '.join(faults)}; restore its files")


def find_weights(folder: Path, kind: str) -> list[Path]:
    """Return the safetensors files from which `kind` is loaded: one file, or the shards of an index.

    Raises:
        Hand1000Error: There are none, or the index is malformed.
    """
    from hand1000.storage.files import read_json

    for stem in ("diffusion_pytorch_model", "model"):
        if (path := folder / f"{stem}.safetensors").is_file():
            return [path]
        if (index := folder / f"{stem}.safetensors.index.json").is_file():
            listing = read_json(index)
            names = listing.get("weight_map") if isinstance(listing, Mapping) else None
            if not isinstance(names, Mapping) or not names:
                raise Hand1000Error(f"{index}: lists no weights; restore it from a copy")
            for name in sorted(set(map(str, names.values()))):
                if os.path.basename(name) != name or not name.endswith(".safetensors"):
                    raise Hand1000Error(f"{index}: {_name(name)} is not the plain name of a safetensors file")
            return [folder / name for name in sorted(set(names.values()))]
    if variants := sorted(folder.glob("*.fp16*.safetensors")):
        raise Hand1000Error(
            f"{folder}: cannot be loaded as {kind}: it has only the variant fp16, {_name(variants[0].name)}; remove "
            "'.fp16' from the names of its files"
        )
    pickled = any(folder.glob("*.bin")) or any(folder.glob("*.ckpt"))
    remedy = "convert its pickle, which is never loaded" if pickled else "restore its files"
    raise Hand1000Error(f"{folder}: cannot be loaded as {kind}: it has no safetensors file; {remedy}")


def _check_types(path: Path, types: Mapping[str, str], mixed: Collection[str]) -> None:
    for name, kind in types.items():
        if kind not in _FLOATS and not BUFFERS.search(name):
            raise Hand1000Error(f"{path}: the tensor {_name(name)} has the type {kind}; save it as F32, F16 or BF16")
    floats = {
        name: kind
        for name, kind in types.items()
        if kind in _FLOATS and not BUFFERS.search(name) and not any(part in name for part in mixed)
    }
    counts = Counter(floats.values()).most_common()
    if len(counts) > 1:
        (usual, _), (other, number) = counts[0], counts[-1]
        name = next(name for name, kind in sorted(floats.items()) if kind == other)
        raise Hand1000Error(
            f"{path}: has tensors of several types: {_name(name)} is {other}, {len(floats) - number} others are "
            f"{usual}; save all in one type"
        )


def _name(name: str) -> str:
    return escape_unprintable(str(name))[:120]


def _shape(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape)) or "a single number"
