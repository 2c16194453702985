"""The measures of captions, held against the definition; CLIP's real classes with random weights."""

from itertools import combinations
from pathlib import Path

import pytest
import torch
from PIL import Image

from hand1000.captions.metrics import compute_caption_metrics
from hand1000.core.errors import Hand1000Error
from hand1000.models.clip import Clip
from tests.support.tiny_captioners import save_clip

FOUR = "making four fingers up hand gesture"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    return Clip(str(save_clip(tmp_path_factory.mktemp("clip"))))


def test_the_measures_are_what_their_definition_says(clip: Clip, tmp_path: Path) -> None:
    texts = [f"a red hand, {FOUR}", "a blue wall", "A blue hand", f"{FOUR} and {FOUR}", "a dog"]
    images = []
    for index, color in enumerate(("red", "green", "blue", "white", "black")):
        images.append(tmp_path / f"{index}.png")
        Image.new("RGB", (20, 24), color).save(images[-1])
    seen: list[tuple[int, int]] = []
    quality = compute_caption_metrics(
        images, texts, "four", captioner="someone", clip=clip, batch_size=2, on_progress=lambda *done: seen.append(done)
    )
    of_images, of_texts = clip.embed(images, texts)
    torch.testing.assert_close(of_texts.norm(dim=1), torch.ones(5, dtype=torch.float64))
    pairs = [float(of_texts[a] @ of_texts[b]) for a, b in combinations(range(5), 2)]
    assert quality.caption_caption_similarity == pytest.approx(sum(pairs) / len(pairs), abs=1e-5)
    assert quality.image_caption_similarity == pytest.approx(float((of_images * of_texts).sum() / 5), abs=1e-5)
    assert (quality.n, quality.with_phrase, quality.vocabulary) == (5, 0.2, 12)
    assert quality.words == pytest.approx((9 + 3 + 3 + 13 + 2) / 5)
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_one_caption_has_no_other_to_be_like(clip: Clip, tmp_path: Path) -> None:
    Image.new("RGB", (20, 24), "red").save(tmp_path / "a.png")
    one = compute_caption_metrics([tmp_path / "a.png"], ["a"], "four", captioner="someone", clip=clip)
    assert one.caption_caption_similarity is None and one.image_caption_similarity is not None
    bare = compute_caption_metrics([tmp_path / "a.png"], ["a"], "four", captioner="someone", clip=None)
    assert (bare.clip, bare.image_caption_similarity, bare.words) == (None, None, 1)
    with pytest.raises(Hand1000Error, match="0 captions of 0 images"):
        compute_caption_metrics([], [], "four", captioner="someone", clip=clip)
