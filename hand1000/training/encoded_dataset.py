"""The training images as latents and text embeddings, computed once for Stages II and III."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from hand1000.captions.token_limit import describe_shortened, fit_caption
from hand1000.core.progress import ProgressCallback, noop_callback
from hand1000.data.imageset import ImageRecord
from hand1000.gestures import gesture_phrase
from hand1000.models.backbone import Backbone
from hand1000.models.conditioning import Conditioning
from hand1000.models.encoding import read_images
from hand1000.storage.tensors import TensorRecord

logger = logging.getLogger(__name__)


@dataclass
class EncodedDataset(TensorRecord, stem="prepared", remedy="prepare the data again"):
    """The training images as the diffusion model sees them.

    Attributes:
        latents: Scaled latents, (N, C, h, w) float32.
        text_embeddings: Text embeddings e of the captions with the phrase, (N, L, D) float32.
        empty_embedding: Text embedding of the null prompt, (L, D).
        file_names: File name of each image, N in this order.
        captions: Caption of each image, without the gesture's phrase.
        texts: Caption of each image, with the phrase, as it is encoded.
        user_ids: Person on each image.
        gestures: Gesture of each image.
        pooled: Pooled vectors of the captions, (N, P) float32, for a backbone that takes them.
        empty_pooled: Pooled vector of the null prompt, (P,).
    """

    latents: torch.Tensor
    text_embeddings: torch.Tensor
    empty_embedding: torch.Tensor
    file_names: list[str]
    captions: list[str]
    texts: list[str]
    user_ids: list[str]
    gestures: list[str]
    pooled: torch.Tensor | None = None
    empty_pooled: torch.Tensor | None = None

    @property
    def conditioning(self) -> Conditioning:
        """The conditioning of the N captions, without a fusion."""
        return Conditioning(self.text_embeddings, self.pooled)

    @property
    def null_conditioning(self) -> Conditioning:
        """The conditioning of the null prompt, of one image, without a fusion."""
        return Conditioning(self.empty_embedding, self.empty_pooled).map(lambda tensor: tensor[None])


def encode_dataset(
    base: Backbone,
    folder: Path,
    records: Sequence[ImageRecord],
    on_progress: ProgressCallback = noop_callback,
    batch_size: int = 32,
) -> EncodedDataset:
    """Encode the images in `folder` and their captions.

    Captions that the text encoder does not read to their end lose words, but not their phrases (`fit_caption`). The
    captioning stage has done that already, for the same text encoder; other captions are named in a warning.

    Raises:
        Hand1000Error: A phrase is longer than the text encoder reads.
    """
    file_names, limit = [record.file_name for record in records], base.token_limit
    texts = [fit_caption(record.text, gesture_phrase(record.gesture), limit) for record in records]
    shortened = [record.file_name for record, text in zip(records, texts, strict=True) if text != record.text]
    if shortened:
        logger.warning("%s", describe_shortened(shortened, len(texts), limit.max_tokens))
    latents = []
    for start in range(0, len(file_names), batch_size):
        images = read_images([folder / name for name in file_names[start : start + batch_size]])
        latents.append(base.encode_images(images, batch_size))
        on_progress(min(start + batch_size, len(file_names)), len(file_names))
    conditioning = base.encode_text([*texts, ""]).to("cpu", torch.float32)
    captions, null = conditioning[:-1], base.null_conditioning(conditioning[-1:])
    return EncodedDataset(
        latents=torch.cat(latents),
        text_embeddings=captions.tokens.clone(),
        empty_embedding=null.tokens[0].clone(),
        file_names=file_names,
        captions=[record.caption for record in records],
        texts=texts,
        user_ids=[record.user_id for record in records],
        gestures=[record.gesture for record in records],
        pooled=None if captions.pooled is None else captions.pooled.clone(),
        empty_pooled=None if null.pooled is None else null.pooled[0].clone(),
    )
