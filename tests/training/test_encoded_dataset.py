"""The encoded training images."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from hand1000.core.progress import noop_callback
from hand1000.data.imageset import ImageRecord
from hand1000.models.encoding import encode_texts, find_truncated
from hand1000.training.encoded_dataset import EncodedDataset, encode_dataset
from tests.support.tiny_models import LATENT, TEXTS, tiny_base


def test_encoded_data_keeps_order_and_names_cut_captions(tmp_path: Path, caplog) -> None:
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
        "1 of 2 captions are longer than the 16 tokens that the text encoder reads; their end is lost: b.png"
    ]
    assert torch.equal(prepared.empty_embedding, encode_texts(base.text_encoder, base.tokenizer, [""])[0])
    prepared.save(tmp_path)
    loaded = EncodedDataset.load(tmp_path)
    assert torch.equal(loaded.text_embeddings, prepared.text_embeddings) and loaded.file_names == names
    assert (loaded.captions, loaded.texts, loaded.user_ids) == (texts, texts, ["u", "u"])
    assert loaded.gestures == ["four", "four"]
    assert find_truncated(base.tokenizer, []) == []
