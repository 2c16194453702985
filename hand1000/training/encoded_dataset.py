"""What Stages II and III read of the data: latents and text embeddings, computed once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from hand1000.data.imageset import ImageRecord
from hand1000.models.base_model import BaseModel
from hand1000.models.encoding import count_truncated, encode_texts
from hand1000.models.latents import encode_latents, read_images
from hand1000.storage.tensors import TensorRecord

FULL_IMAGE_BOX = (0.0, 0.0, 1.0, 1.0)
"""The box of a picture whose hand is not labelled."""


@dataclass
class EncodedDataset(TensorRecord, stem="prepared", remedy="prepare the data again"):
    """The training set as the diffusion model sees it.

    Attributes:
        latents: scaled, (N, C, h, w), float32.
        text_embeddings: e of the captions, (N, L, D), float32.
        empty_embedding: e of the empty prompt, (L, D).
        boxes: of the labelled hands, x, y, w, h relative to the image, (N, 4); all of it where there is no label.
        file_names: of the images, in this order.
        captions: without the gesture's phrase, an image one.
        texts: the captions with the phrase.
        user_ids: who is on each image.
        gestures: what each image shows.
        truncated: how many captions were longer than the text encoder reads.
    """

    latents: torch.Tensor
    text_embeddings: torch.Tensor
    empty_embedding: torch.Tensor
    boxes: torch.Tensor
    file_names: list[str]
    captions: list[str]
    texts: list[str]
    user_ids: list[str]
    gestures: list[str]
    truncated: int


def encode_dataset(
    base: BaseModel,
    folder: Path,
    records: Sequence[ImageRecord],
    progress: Callable[[int, int], None],
    batch_size: int = 32,
) -> EncodedDataset:
    """Encode the images of an image set and their captions.

    Args:
        base: the base model.
        folder: of the image set.
        records: its images, captioned.
        progress: is given (done, total) images.
        batch_size: images that are in memory at once.
    """
    file_names, texts = [record.file_name for record in records], [record.text for record in records]
    latents = []
    for start in range(0, len(file_names), batch_size):
        images = read_images([folder / name for name in file_names[start : start + batch_size]])
        latents.append(encode_latents(base.vae, images, batch_size))
        progress(min(start + batch_size, len(file_names)), len(file_names))
    embeddings = encode_texts(base.text_encoder, base.tokenizer, [*texts, ""]).float().cpu()
    return EncodedDataset(
        latents=torch.cat(latents),
        text_embeddings=embeddings[:-1].clone(),
        empty_embedding=embeddings[-1].clone(),
        boxes=torch.tensor([record.bbox or FULL_IMAGE_BOX for record in records]),
        file_names=file_names,
        captions=[record.caption for record in records],
        texts=texts,
        user_ids=[record.user_id for record in records],
        gestures=[record.gesture for record in records],
        truncated=count_truncated(base.tokenizer, texts),
    )
