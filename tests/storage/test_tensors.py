"""Records of arrays and JSON values: the two files, their names and their errors."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from hand1000.core.errors import Hand1000Error
from hand1000.storage.tensors import TensorRecord


@dataclass(frozen=True)
class Hands(TensorRecord, stem="hands", remedy="detect them again"):
    points: np.ndarray
    names: tuple[str, ...]
    words: tuple[tuple[str, ...], ...] = ()

    def _validate(self) -> None:
        if len(self.points) != len(self.names):
            raise ValueError(f"{len(self.points)} hands of {len(self.names)} images")


@dataclass(frozen=True)
class Latents(TensorRecord, stem="latents", remedy="encode the images again"):
    latents: torch.Tensor


HANDS = Hands(np.arange(6, dtype=np.float32).reshape(2, 3), ("a.png", "b.png"), (("left",), ()))


def test_a_record_is_two_files_and_reads_back_equal(tmp_path: Path) -> None:
    HANDS.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hands.json", "hands.safetensors"]
    assert (tmp_path / "hands.json").read_text() == '{"names":["a.png","b.png"],"words":[["left"],[]]}\n'
    assert load_file(tmp_path / "hands.safetensors")["points"].tolist() == HANDS.points.tolist()
    loaded = Hands.load(tmp_path)
    assert (loaded.names, loaded.words) == (HANDS.names, HANDS.words)
    assert loaded.points.dtype == np.float32 and np.array_equal(loaded.points, HANDS.points)


def test_a_record_of_tensors_alone_has_no_json_file(tmp_path: Path) -> None:
    Latents(torch.ones(2, 3)).save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["latents.safetensors"]
    assert torch.equal(Latents.load(tmp_path).latents, torch.ones(2, 3))


def test_transposed_arrays_are_saved_in_row_major_order(tmp_path: Path) -> None:
    Hands(HANDS.points.T, ("a", "b", "c")).save(tmp_path)
    assert np.array_equal(Hands.load(tmp_path).points, HANDS.points.T)
    Latents(torch.arange(6).reshape(2, 3).T).save(tmp_path)
    assert torch.equal(Latents.load(tmp_path).latents, torch.arange(6).reshape(2, 3).T)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"names": ["a.png"], "words": []}, "2 hands of 1 images"),
        ({"names": [1, 2], "words": []}, "valid string"),
        ({"words": []}, "names"),
    ],
)
def test_a_malformed_record_names_file_and_remedy(tmp_path: Path, values: dict, reason: str) -> None:
    HANDS.save(tmp_path)
    (tmp_path / "hands.json").write_text(json.dumps(values))
    with pytest.raises(Hand1000Error, match=rf"hands\.safetensors: not valid hands: .*{reason}.*detect them again"):
        Hands.load(tmp_path)


def test_damaged_or_missing_tensors_name_file_and_remedy(tmp_path: Path) -> None:
    HANDS.save(tmp_path)
    (tmp_path / "hands.safetensors").write_bytes(b"broken")
    with pytest.raises(Hand1000Error, match=r"hands\.safetensors: not valid hands: .*detect them again"):
        Hands.load(tmp_path)
    (tmp_path / "hands.safetensors").unlink()
    with pytest.raises(Hand1000Error, match=r"hands\.safetensors: not valid hands: .*detect them again"):
        Hands.load(tmp_path)
