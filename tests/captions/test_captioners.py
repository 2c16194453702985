"""The three image captioners: the real classes with random weights, whose captions are noise."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from hand1000.captions.captioners import VisionCaptioner
from hand1000.config.caption_settings import CaptionerSettings
from hand1000.core.errors import Hand1000Error
from tests.support.mutated_models import WEIGHT_MUTATIONS, rewrite
from tests.support.tiny_captioners import CAPTIONERS


def make_captioner(kind, source: Path | str) -> VisionCaptioner:
    settings = CaptionerSettings(kind=kind, source=str(source), batch_size=16, max_new_tokens=5, num_beams=1)
    return VisionCaptioner(settings)


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    paths = []
    for index, color in enumerate(("red", "green", "blue", "white", "black")):
        paths.append(tmp_path / f"{index}.png")
        Image.new("RGB", (24, 20), color).save(paths[-1])
    return paths


@pytest.mark.parametrize("kind", CAPTIONERS)
def test_batch_size_and_order_do_not_change_the_captions(kind, images: list[Path], tmp_path: Path) -> None:
    folder = CAPTIONERS[kind](tmp_path / kind)
    captioner = make_captioner(kind, folder)
    captions = captioner.caption(images)
    assert len(captions) == 5 and any(captions) and all(len(caption.split()) <= 5 for caption in captions)
    other = make_captioner(kind, folder)
    assert [caption for start in (0, 2, 4) for caption in other.caption(images[start : start + 2])] == captions
    assert captioner.name.startswith(f"{kind} ")
    assert captioner.caption(images[::-1]) == captions[::-1]


def test_the_error_names_a_model_that_lacks_a_part(images: list[Path], tmp_path: Path) -> None:
    folder = CAPTIONERS["vit-gpt2"](tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(Hand1000Error, match="cannot be loaded as vit-gpt2"):
        make_captioner("vit-gpt2", folder).caption(images)
    with pytest.raises(Hand1000Error, match="pin the revision"):
        make_captioner("blip2", "Salesforce/some-blip")


@pytest.mark.parametrize("kind", CAPTIONERS)
def test_a_damaged_captioner_is_refused_by_name(kind: str, images: list[Path], tmp_path: Path) -> None:
    for fault in ("missing", "unexpected", "another shape", "NaN", "cut short"):
        folder = CAPTIONERS[kind](tmp_path / fault)
        damage, pattern = WEIGHT_MUTATIONS[fault]
        damage(folder)
        with pytest.raises(Hand1000Error, match=pattern):
            make_captioner(kind, folder).caption(images)


def test_masks_that_an_older_version_saved_do_not_matter(images: list[Path], tmp_path: Path) -> None:
    """The released ViT-GPT2 has them beside its weights."""
    folder = CAPTIONERS["vit-gpt2"](tmp_path / "model")
    captions = make_captioner("vit-gpt2", folder).caption(images)
    layer = "decoder.transformer.h.0"
    masks = {f"{layer}.{name}.bias": torch.ones(1, 1, 4, 4, dtype=torch.uint8) for name in ("attn", "crossattention")}
    rewrite(folder, lambda tensors: tensors.update(masks | {f"{layer}.attn.masked_bias": torch.tensor(-1e4).half()}))
    assert make_captioner("vit-gpt2", folder).caption(images) == captions
