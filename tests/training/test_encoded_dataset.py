"""The encoded training images."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hand1000.core.progress import noop_callback
from hand1000.data.imageset import ImageRecord
from hand1000.gestures import PHRASES
from hand1000.models.base_model import load_base_model
from hand1000.models.encoding import encode_texts, tokenize
from hand1000.storage.tensor_rows import TensorRows
from hand1000.training.encoded_dataset import EncodedDataset, encode_dataset
from tests.support.tiny_models import LATENT, TEXTS, tiny_base
from tests.support.tiny_sdxl import fresh_sdxl


def test_encoded_data_keeps_order_and_names_short_captions(tmp_path: Path, caplog) -> None:
    base = tiny_base()
    rng = np.random.default_rng(0)
    names = ["a.png", "b.png"]
    for name in names:
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(tmp_path / name)
    texts = [TEXTS[1], "hand " * 50]
    common = {"captioner": "dataset", "gesture": "four", "user_id": "u", "source": "0" * 64}
    records = [
        ImageRecord(file_name=name, text=text, caption=text, **common) for name, text in zip(names, texts, strict=True)
    ]
    prepared = encode_dataset(base, tmp_path, records, noop_callback, batch_size=1)
    assert prepared.latents.shape == (2, 4, LATENT, LATENT)
    messages = [record.getMessage() for record in caplog.records if record.name.startswith("hand1000")]
    assert messages == [
        "1 of 2 captions were shortened before the gesture's phrase to the 16 tokens that the text encoder reads: b.png"
    ]
    assert torch.equal(prepared.empty_embedding, encode_texts(base.text_encoder, base.tokenizer, [""])[0])
    prepared.save(tmp_path)
    loaded = EncodedDataset.load(tmp_path)
    assert torch.equal(loaded.text_embeddings[:], prepared.text_embeddings) and loaded.file_names == names
    assert loaded.captions == texts and loaded.user_ids == ["u", "u"]
    assert loaded.texts == [texts[0], " ".join(["hand"] * 14)]
    assert loaded.gestures == ["four", "four"]


@pytest.mark.parametrize("build", [tiny_base, fresh_sdxl])
def test_a_dataset_is_written_batch_by_batch_with_equal_bytes(build, tmp_path: Path) -> None:
    base = build()
    rng = np.random.default_rng(0)
    texts = ["a red hand", *[f"a {'red ' * index}hand" for index in range(5)]]
    common = {"captioner": "dataset", "gesture": "four", "user_id": "u", "source": "0" * 64}
    records = [
        ImageRecord(file_name=f"{index}.png", text=text, caption=text, **common) for index, text in enumerate(texts)
    ]
    size = base.resolution
    for record in records:
        Image.fromarray(rng.integers(0, 255, (size, size, 3), dtype=np.uint8)).save(tmp_path / record.file_name)
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    seen: list[int] = []
    whole = encode_dataset(base, tmp_path, records, lambda done, _: seen.append(done), batch_size=4)
    whole.save(tmp_path / "whole")
    parts = encode_dataset(base, tmp_path, records, batch_size=4, directory=tmp_path / "parts")
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "parts" / path.name).read_bytes()
    assert isinstance(parts.latents, TensorRows) and isinstance(parts.text_embeddings, TensorRows)
    assert torch.equal(parts.conditioning[[1, 0]].tokens, whole.text_embeddings[[1, 0]]) and seen == [4, 6]
    assert torch.equal(whole.text_embeddings, base.encode_text([*texts, ""]).tokens[:-1])


def test_long_captions_keep_the_phrases_of_their_gestures(tmp_path: Path) -> None:
    """Cut at its end, a long caption would lose the phrase, and two gestures would have one embedding."""
    base = load_base_model(str(Path(__file__).parents[2] / "models" / "small-base"))
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    common = {"file_name": "a.png", "captioner": "dataset", "user_id": "u", "source": "0" * 64, "caption": "wall " * 60}
    records = [
        ImageRecord(text=f"{'wall ' * 60}, {PHRASES[gesture]}", gesture=gesture, **common) for gesture in ("four", "ok")
    ]
    encoded = encode_dataset(base, tmp_path, records)
    assert not torch.equal(*encoded.text_embeddings)
    assert [text.endswith(PHRASES[record.gesture]) for text, record in zip(encoded.texts, records, strict=True)] == [
        True
    ] * 2


def test_token_ids_are_padded_and_cut_as_the_tokenizer_does() -> None:
    tokenizer = tiny_base().tokenizer
    texts = ["", *TEXTS, "hand " * 14, "hand " * 15, "hand " * 50]
    options = {"padding": "max_length", "truncation": True, "max_length": tokenizer.model_max_length}
    expected = copy.deepcopy(tokenizer)(texts, return_tensors="pt", **options).input_ids
    assert torch.equal(tokenize(tokenizer, texts), expected)
