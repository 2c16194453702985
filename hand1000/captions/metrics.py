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
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

from hand1000.config.base import Fraction
from hand1000.core.errors import Hand1000Error
from hand1000.core.tables import Table, format_number
from hand1000.gestures import gesture_phrase


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
