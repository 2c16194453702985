"""Helpers for tests of the artifact store: folders of files, damage, and processes that are killed."""

import os
import random
import shutil
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from hand1000.storage.artifacts import ArtifactStore

KEY = "0" * 64
FILES = {"model.json": "{}", "unet/weights.bin": "0123456789", "unet/empty": ""}


def folder_with(path: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    return path


def files_of(path: Path) -> dict[str, str]:
    return {file.relative_to(path).as_posix(): file.read_text() for file in path.rglob("*") if file.is_file()}


def delete_behind(store: ArtifactStore, address: str) -> None:
    """Delete one file or object behind the store's back."""
    if address.startswith("s3://"):
        url = urlsplit(address)
        store._backend.client.delete_object(Bucket=url.netloc, Key=url.path.lstrip("/"))
    else:
        os.remove(address)


def overwrite_behind(store: ArtifactStore, address: str, data: bytes) -> None:
    if address.startswith("s3://"):
        url = urlsplit(address)
        store._backend.client.put_object(Bucket=url.netloc, Key=url.path.lstrip("/"), Body=data)
    else:
        Path(address).write_bytes(data)


def flip_behind(store: ArtifactStore | None, address: str, rng: random.Random) -> None:
    """Flip one bit of a file or object and keep its size and, of a file, its time."""
    if store is not None and address.startswith("s3://"):
        url = urlsplit(address)
        data = store._backend.client.get_object(Bucket=url.netloc, Key=url.path.lstrip("/"))["Body"].read()
        overwrite_behind(store, address, flipped(data, rng))
        return
    before = os.stat(address)
    data = Path(address).read_bytes()
    with open(address, "r+b") as file:
        file.write(flipped(data, rng))
    os.utime(address, ns=(before.st_atime_ns, before.st_mtime_ns))


def flipped(data: bytes, rng: random.Random) -> bytes:
    position = rng.randrange(len(data))
    return data[:position] + bytes([data[position] ^ 1 << rng.randrange(8)]) + data[position + 1 :]


def fresh(store: ArtifactStore) -> ArtifactStore:
    """The store as another process sees it."""
    return ArtifactStore(type(store._backend)(store.root))


def kill_in(monkeypatch: pytest.MonkeyPatch, store: ArtifactStore, method: str, fatal_call: int = 1) -> None:
    """Simulate the end of the process at the start of the given call of a method of the store's backend."""
    backend, calls = type(store._backend), []
    original = getattr(backend, method)

    def dying(self, *args):
        calls.append(args)
        if len(calls) == fatal_call:
            raise SimulatedKill
        return original(self, *args)

    monkeypatch.setattr(backend, method, dying)


class SimulatedKill(BaseException):
    """Simulates the end of the process: no handler of the code catches it."""


def save_step(store: ArtifactStore, tmp_path: Path, step: int) -> None:
    store.checkpoint("stage3", KEY).save(folder_with(tmp_path / f"state{step}", {"step": str(step), "same": "s"}))


def restore_step(store: ArtifactStore, into: Path) -> str | None:
    shutil.rmtree(into, ignore_errors=True)
    return (into / "step").read_text() if fresh(store).checkpoint("stage3", KEY).restore(into) else None
