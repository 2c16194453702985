"""How good captions are: the measures of the paper's table of captioners.

| measure | of | better |
| --- | --- | --- |
| image-caption similarity | cosine of CLIP's embeddings of an image and its caption, mean | higher |
| caption-caption similarity | the same of two different captions, mean over all pairs: sameness | lower |
| with the phrase | share of captions that hold the gesture's exact phrase | 1 |
| words, vocabulary | mean words a caption, different words of all | |
"""

import re
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from hand1000.config.base import Fraction
from hand1000.core.devices import best_device
from hand1000.core.errors import Hand1000Error, one_line
from hand1000.core.tables import Table, format_number
from hand1000.gestures import gesture_phrase
from hand1000.storage.hub import fetch_model_folder, model_identity


class CaptionMetrics(BaseModel):
    """The measures of one captioner's captions; the similarities are -1 to 1."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    captioner: str
    clip: str | None
    n: int = Field(ge=1)
    image_caption_similarity: float | None
    caption_caption_similarity: float | None
    with_phrase: Fraction
    words: float
    vocabulary: int


class Clip:
    """CLIP's two encoders.

    Args:
        source: a folder, an `s3://` address, or a hub id with its revision.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.name = model_identity(source)

    @cached_property
    def _loaded(self) -> tuple[Any, Any, Any]:
        from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

        device = best_device()
        folder = fetch_model_folder(self.source)
        try:
            model = CLIPModel.from_pretrained(folder, use_safetensors=True)
            tokenizer = AutoTokenizer.from_pretrained(folder)
            processor = CLIPImageProcessorPil.from_pretrained(folder)
        except (OSError, ValueError) as error:
            raise Hand1000Error(f"{self.source}: cannot be loaded as CLIP: {one_line(error)}") from error
        return model.to(device).eval(), tokenizer, processor

    def embed(self, images: Sequence[Path], texts: Sequence[str]) -> tuple[Any, Any]:
        """Unit embeddings (B, D) of the images and of the texts, float64 on the CPU."""
        import torch
        from PIL import Image

        model, tokenizer, processor = self._loaded
        pictures = []
        for path in images:
            with Image.open(path) as picture:
                pictures.append(picture.convert("RGB"))
        pixels = processor(images=pictures, return_tensors="pt").to(model.device)
        tokens = tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt").to(model.device)
        with torch.inference_mode():
            joint = model(**tokens, **pixels)
        return joint.image_embeds.double().cpu(), joint.text_embeds.double().cpu()


def compute_caption_metrics(
    images: Sequence[Path],
    texts: Sequence[str],
    gesture: str,
    *,
    captioner: str,
    clip: Clip | None,
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> CaptionMetrics:
    """Measure the captions `texts` of `images`, in one pass and with memory for one batch.

    The mean over all pairs follows from the sum s of the unit embeddings, (|s|^2 - n) / (n (n - 1)): a matrix of all
    pairs is never made, and no caption is compared with itself.

    Args:
        images: the files.
        texts: a caption an image.
        gesture: whose phrase is looked for.
        captioner: who wrote them.
        clip: embeds both; None leaves the similarities out.
        batch_size: images that are in memory at once.
        progress: is given (done, total) images.

    Raises:
        Hand1000Error: nothing to measure, an unknown gesture, or CLIP cannot be loaded.
    """
    import torch

    if not texts or len(texts) != len(images):
        raise Hand1000Error(f"{len(texts)} captions of {len(images)} images: there must be one an image, one at least")
    phrase, count = gesture_phrase(gesture), len(texts)
    alike, total = 0.0, torch.zeros(())
    for start in range(0, count if clip else 0, batch_size):
        assert clip is not None
        batch = slice(start, start + batch_size)
        of_images, of_texts = clip.embed(images[batch], texts[batch])
        alike += float((of_images * of_texts).sum())
        total = total + of_texts.sum(0)
        if progress:
            progress(min(start + batch_size, count), count)
    words = [re.findall(r"\w+", text.lower()) for text in texts]
    pairs = count * (count - 1)
    return CaptionMetrics(
        captioner=captioner,
        clip=clip.name if clip else None,
        n=count,
        image_caption_similarity=alike / count if clip else None,
        caption_caption_similarity=(float((total * total).sum()) - count) / pairs if clip and pairs else None,
        with_phrase=sum(text.count(phrase) == 1 for text in texts) / count,
        words=sum(map(len, words)) / count,
        vocabulary=len({word for one in words for word in one}),
    )


def caption_metrics_table(metrics: Sequence[CaptionMetrics]) -> Table:
    """The metrics of all captioners, one row each."""
    header = ("captioner", "n", "image-caption ↑", "caption-caption ↓", "with the phrase", "words", "vocabulary")
    rows = [
        (
            row.captioner,
            row.n,
            *map(format_number, (row.image_caption_similarity, row.caption_caption_similarity, row.with_phrase)),
            f"{row.words:.1f}",
            row.vocabulary,
        )
        for row in metrics
    ]
    return Table(header, rows, numeric=range(1, len(header)))
