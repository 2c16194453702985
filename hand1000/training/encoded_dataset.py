"""The training images as latents and text embeddings, computed once for Stages II and III."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, product
from pathlib import Path
from typing import Any

import torch

from hand1000.captions.token_limit import describe_shortened, fit_caption
from hand1000.core.progress import ProgressCallback, noop_callback
from hand1000.data.imageset import ImageRecord
from hand1000.gestures import gesture_phrase
from hand1000.models.backbone import Backbone
from hand1000.models.conditioning import Conditioning
from hand1000.models.encoding import TEXT_BATCH_SIZE, read_images
from hand1000.storage.tensor_rows import create_tensor_rows
from hand1000.storage.tensors import TensorRecord

logger = logging.getLogger(__name__)

_COLUMNS = {"text_embeddings": "tokens", "pooled": "pooled", "lengths": "lengths"}
"""Fields of `EncodedDataset` with a row for each caption, and those of `Conditioning` that they hold."""

_EMPTY = {"tokens": "empty_embedding", "pooled": "empty_pooled", "lengths": "empty_length"}
"""The fields of `EncodedDataset` that hold the null prompt's."""


@dataclass
class EncodedDataset(
    TensorRecord, stem="prepared", remedy="prepare the data again", by_rows=("latents", "text_embeddings")
):
    """The training images as the diffusion model sees them.

    The latents and text embeddings of a loaded dataset stay in the file; only the rows that are used are read.

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
        lengths: Number of tokens of each caption, (N,), for a backbone that does not read those after them.
        empty_length: Number of tokens of the null prompt, ().
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
    lengths: torch.Tensor | None = None
    empty_length: torch.Tensor | None = None

    @property
    def conditioning(self) -> Conditioning:
        """The conditioning of the N captions, without a fusion."""
        return Conditioning(self.text_embeddings, self.pooled, self.lengths)

    @property
    def null_conditioning(self) -> Conditioning:
        """The conditioning of the null prompt, of one image, without a fusion."""
        null = Conditioning(self.empty_embedding, self.empty_pooled, self.empty_length)
        return null.map(lambda tensor: tensor[None])


def encode_dataset(
    base: Backbone,
    folder: Path,
    records: Sequence[ImageRecord],
    on_progress: ProgressCallback = noop_callback,
    *,
    batch_size: int = 32,
    directory: Path | None = None,
) -> EncodedDataset:
    """Encode the images in `folder` and their captions.

    Captions that the text encoder does not read to their end lose words, but not their phrases (`fit_caption`). The
    captioning stage has done that already, for the same text encoder; other captions are named in a warning.

    Args:
        base: Base model with autoencoder and text encoders.
        folder: Folder of the images, which all have the model's resolution.
        records: The images' records.
        on_progress: Progress after each batch.
        batch_size: Images that are read at a time.
        directory: Folder for the files of `EncodedDataset.save`. They are written batch by batch, and the returned
            dataset reads from them; without it everything is in memory.

    Raises:
        Hand1000Error: A phrase is longer than the text encoder reads.
    """
    file_names, limit = [record.file_name for record in records], base.token_limit
    texts = [fit_caption(record.text, gesture_phrase(record.gesture), limit) for record in records]
    shortened = [record.file_name for record, text in zip(records, texts, strict=True) if text != record.text]
    if shortened:
        logger.warning("%s", describe_shortened(shortened, len(texts), limit.max_tokens))
    latents, captions = _iter_latents(base, folder, file_names, batch_size), _iter_conditionings(base, texts)
    # The first batches say what is in a row, and "" is the first of the sorted texts.
    first_latents, (first_texts, first) = next(latents), next(captions)
    null = base.null_conditioning(first[:1])
    columns = {column: name for column, name in _COLUMNS.items() if getattr(first, name) is not None}
    rows = {"latents": first_latents, **{column: getattr(first, name) for column, name in columns.items()}}
    whole = {_EMPTY[name]: getattr(null, name)[0].clone() for name in columns.values()}
    positions: dict[str, list[int]] = {}
    for index, text in enumerate(texts):
        positions.setdefault(text, []).append(index)
    with _make_arrays(rows, len(records), whole, directory) as arrays:
        start = 0
        for batch in chain([first_latents], latents):
            arrays["latents"][start : start + len(batch)] = batch
            start += len(batch)
            on_progress(start, len(records))
        for batch_texts, conditioning in chain([(first_texts, first)], captions):
            for row, text in enumerate(batch_texts):
                for index, (column, name) in product(positions.get(text, ()), columns.items()):
                    arrays[column][index : index + 1] = getattr(conditioning, name)[row : row + 1]
    dataset = EncodedDataset(
        **arrays,
        **whole,
        file_names=file_names,
        captions=[record.caption for record in records],
        texts=texts,
        user_ids=[record.user_id for record in records],
        gestures=[record.gesture for record in records],
    )
    if directory is None:
        return dataset
    dataset.save_values(directory)
    return EncodedDataset.load(directory)


def _iter_latents(base: Backbone, folder: Path, file_names: Sequence[str], batch_size: int) -> Iterator[torch.Tensor]:
    for start in range(0, len(file_names), batch_size):
        images = read_images([folder / name for name in file_names[start : start + batch_size]])
        yield base.encode_images(images, batch_size)


def _iter_conditionings(base: Backbone, texts: Sequence[str]) -> Iterator[tuple[list[str], Conditioning]]:
    """Encode each text and "" once, sorted, in the batches of `encode_texts`; yield the texts of a batch and theirs."""
    unique = sorted({*texts, ""})
    for start in range(0, len(unique), TEXT_BATCH_SIZE):
        batch = unique[start : start + TEXT_BATCH_SIZE]
        yield batch, base.encode_text(batch).to("cpu", torch.float32)


@contextmanager
def _make_arrays(
    rows: Mapping[str, torch.Tensor], count: int, whole: Mapping[str, torch.Tensor], directory: Path | None
) -> Iterator[dict[str, Any]]:
    """Make arrays of `count` rows like `rows`, in memory or in the file of a dataset, which gets `whole` too."""
    kinds = {name: (tensor.dtype, (count, *tensor.shape[1:])) for name, tensor in rows.items()}
    if directory is None:
        yield {name: torch.empty(shape, dtype=dtype) for name, (dtype, shape) in kinds.items()}
        return
    with create_tensor_rows(EncodedDataset.tensor_path(directory), kinds, whole) as arrays:
        yield dict(arrays)
