"""Metrics of captions: the paper's comparison of captioners.

| metric | meaning | better |
| --- | --- | --- |
| image-caption similarity | mean cosine of CLIP's embeddings of an image and its caption | higher |
| caption-caption similarity | mean cosine of the embeddings of two different captions, over all pairs | lower |
| with the phrase | share of captions that contain the gesture's exact phrase once | 1 |
| words, vocabulary | mean words per caption, distinct words of all captions | |
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

from hand1000.config.base import Fraction
from hand1000.core.errors import Hand1000Error
from hand1000.core.progress import ProgressCallback, noop_callback
from hand1000.core.tables import Table, format_number
from hand1000.gestures import gesture_phrase


class CaptionMetrics(BaseModel):
    """Metrics of one captioner's captions; the similarities are from -1 to 1."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    captioner: str
    clip: str | None
    n: int = Field(ge=1)
    image_caption_similarity: float | None
    caption_caption_similarity: float | None
    with_phrase: Fraction
    words: float
    vocabulary: int


class ImageTextEncoder(Protocol):
    """A CLIP-like encoder of images and texts; `hand1000.models.clip` has one."""

    name: str

    def embed(self, images: Sequence[Path], texts: Sequence[str]) -> tuple[Any, Any]:
        """Unit embeddings (B, D) of the images and of the texts."""
        ...


def compute_caption_metrics(
    images: Sequence[Path],
    texts: Sequence[str],
    gesture: str,
    *,
    captioner: str,
    clip: ImageTextEncoder | None,
    batch_size: int = 32,
    on_progress: ProgressCallback = noop_callback,
) -> CaptionMetrics:
    """Measure the captions `texts` of `images` in one pass, with one batch in memory at a time.

    The mean over all pairs follows from the sum s of the unit embeddings, (|s|^2 - n) / (n (n - 1)), so that there is
    no matrix of all pairs, and no caption is compared with itself. Without `clip`, the similarities are left out.

    Raises:
        Hand1000Error: There is no caption, the gesture is unknown, or CLIP cannot be loaded.
    """
    import torch

    if not texts or len(texts) != len(images):
        raise Hand1000Error(f"{len(texts)} captions of {len(images)} images; give one per image, and at least one")
    phrase, count = gesture_phrase(gesture), len(texts)
    similarity, text_sum = 0.0, torch.zeros(())
    for start in range(0, count, batch_size):
        if not clip:
            break
        batch = slice(start, start + batch_size)
        image_embeddings, text_embeddings = clip.embed(images[batch], texts[batch])
        similarity += float((image_embeddings * text_embeddings).sum())
        text_sum = text_sum + text_embeddings.sum(0)
        on_progress(min(start + batch_size, count), count)
    words = [re.findall(r"\w+", text.lower()) for text in texts]
    pairs = count * (count - 1)
    return CaptionMetrics(
        captioner=captioner,
        clip=clip.name if clip else None,
        n=count,
        image_caption_similarity=similarity / count if clip else None,
        caption_caption_similarity=(float((text_sum * text_sum).sum()) - count) / pairs if clip and pairs else None,
        with_phrase=sum(text.count(phrase) == 1 for text in texts) / count,
        words=sum(map(len, words)) / count,
        vocabulary=len({word for caption in words for word in caption}),
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
