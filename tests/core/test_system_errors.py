"""Errors of the operating system inside of libraries, each as one line that names the folder and the remedy."""

import errno
import os
import resource
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, models

from hand1000.core.errors import Hand1000Error, explain_system_error, translate_system_errors, translate_write_errors

LIMIT = 64 * 1024


def fill_database(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "database")) as connection:
        connection.execute("CREATE TABLE t (a)")
        connection.executemany("INSERT INTO t VALUES (?)", [("y" * 1000,)] * 300)
        connection.commit()


def copy_tree(folder: Path) -> None:
    shutil.copytree(folder.with_name("source"), folder / "copy")


WRITES: dict[str, Callable[[Path], object]] = {
    "safetensors": lambda folder: save_file({"a": torch.zeros(100_000)}, folder / "a.safetensors"),
    "torch": lambda folder: torch.save(torch.zeros(100_000), folder / "a.pt"),
    "Pillow": lambda folder: Image.effect_noise((600, 600), 100).save(folder / "a.png"),
    "numpy": lambda folder: np.save(folder / "a.npy", np.zeros(100_000)),
    "shutil": copy_tree,
    "Arrow": lambda folder: pyarrow.parquet.write_table(
        pyarrow.table({"x": np.random.default_rng(0).random(100_000)}), folder / "a.parquet"
    ),
    "tokenizers": lambda folder: Tokenizer(models.WordLevel({f"w{i:0>9}": i for i in range(9000)}, "w")).save(
        str(folder / "a.json")
    ),
}


@pytest.fixture
def limited(tmp_path: Path):
    """A folder in which this process can write files of 64 KiB at most, as on a full disk."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a").write_bytes(bytes(2 * LIMIT))
    folder = tmp_path / "full"
    folder.mkdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, hard))
    yield folder
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def is_one_line_about(error: Hand1000Error, folder: Path) -> bool:
    text = str(error)
    return text.startswith(f"{folder}: ") and "\n" not in text and ("; choose" in text or "; free" in text)


@pytest.mark.parametrize("library", WRITES)
def test_a_write_that_fails_inside_of_a_library_is_one_line(library: str, limited: Path) -> None:
    with pytest.raises(Hand1000Error) as caught, translate_write_errors(limited):
        WRITES[library](limited)
    assert is_one_line_about(caught.value, limited), caught.value


def test_a_full_disk_is_one_line_in_every_library(tiny_disk: Path, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a").write_bytes(bytes(2_000_000))
    disk = tiny_disk
    (disk / "ballast").write_bytes(bytes(950_000))
    (disk.with_name("source")).mkdir(exist_ok=True)
    for library, write in {**WRITES, "sqlite": fill_database}.items():
        with pytest.raises(Hand1000Error) as caught, translate_write_errors(disk):
            write(disk)
        assert is_one_line_about(caught.value, disk), (library, caught.value)
        for path in disk.iterdir():
            if path.name != "ballast":
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def test_open_files_and_memory_that_run_out_are_one_line(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(3)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(files) + 1, hard))
    try:
        with pytest.raises(Hand1000Error, match="too many open files; raise the limit"), translate_system_errors("."):
            (tmp_path / "file").write_text("")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for file in files:
            os.close(file)
    for allocate in (lambda: torch.empty(2**50), lambda: bytearray(2**60)):
        with pytest.raises(Hand1000Error, match="out of memory; choose smaller batches"), translate_system_errors("."):
            allocate()


def test_other_errors_stay_what_they_are() -> None:
    for error in (
        ValueError("a setting"),
        FileNotFoundError(errno.ENOENT, "no such file", "x"),
        Hand1000Error("known"),
    ):
        assert explain_system_error(error, "out") is None
    denied = PermissionError(errno.EACCES, "Permission denied", "secret.yaml")
    assert "secret.yaml: permission denied" in str(explain_system_error(denied, ".", at_place=False))
    try:
        try:
            raise OSError(errno.ENOSPC, "full")
        except OSError:
            raise ValueError("another fault") from None
    except ValueError as error:
        assert explain_system_error(error, "out") is None
