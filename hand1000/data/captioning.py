"""The captioning stage: a caption and its completed text for every image, kept beside the dataset.

`prepare_data` leaves `text` empty. This stage writes one `CaptionRecord` per image into `train.jsonl` and `test.jsonl`,
and `read_captioned_split` gives the later stages the images' records with their texts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from hand1000.captions.cache import compute_missing
from hand1000.captions.captioners import DATASET_CAPTIONER, FALLBACK_CAPTION, VisionCaptioner
from hand1000.captions.chat_tokenizer import load_token_limit
from hand1000.captions.completion import to_plain_text
from hand1000.captions.records import CaptionRecord, read_caption_records
from hand1000.captions.rewrite import RULE, Completion, complete_captions
from hand1000.captions.token_limit import TokenLimit, fit_caption
from hand1000.captions.writers import Writer, load_writer
from hand1000.config.caption_settings import CaptionSettings
from hand1000.core.errors import Hand1000Error
from hand1000.core.progress import ProgressCallback, noop_callback
from hand1000.core.rng import derived_seed
from hand1000.data.imageset import ImageRecord, read_image_set
from hand1000.gestures import gesture_phrase
from hand1000.storage.artifacts import ArtifactStore
from hand1000.storage.digests import digest_file, digest_json
from hand1000.storage.hub import fetch_model_folder, model_identity


@dataclass(frozen=True)
class CaptioningStage:
    """Captions images and completes the captions with their gestures' phrases.

    The tokenizer of `base_model` limits the length of a text. A model captions the images that came without a caption,
    or all images unless `keep_captions`, as in a comparison of captioners.
    """

    settings: CaptionSettings
    base_model: str
    endpoint_key: str = field(default="", repr=False)
    keep_captions: bool = True

    @cached_property
    def _captioner(self) -> VisionCaptioner | None:
        captioner = self.settings.captioner
        return None if captioner.kind == DATASET_CAPTIONER else VisionCaptioner(captioner)

    @cached_property
    def _writer(self) -> Writer | None:
        return load_writer(self.settings.completion, self.endpoint_key)

    @cached_property
    def _captioner_identity(self) -> dict[str, Any]:
        if self._captioner is None:
            return {"captioner": DATASET_CAPTIONER}
        options = self.settings.captioner.model_dump(exclude={"source", "batch_size"})
        return {"captioner": self._captioner.name, "options": options}

    @cached_property
    def _completion_identity(self) -> dict[str, Any]:
        tokenizer = model_identity(self.base_model)
        if self._writer is None:
            return {"writer": RULE, "tokenizer": tokenizer}
        return {"writer": self._writer.name, "attempts": self.settings.completion.attempts, "tokenizer": tokenizer}

    def cache_key_fields(self) -> dict[str, Any]:
        """Return what decides the records besides the images: both models with their options."""
        kept = {"keep_captions": True} if self._captioner and self.keep_captions else {}
        return self._captioner_identity | self._completion_identity | kept | self.settings.variation()

    def caption_records(
        self, directory: Path, records: Sequence[ImageRecord], store: ArtifactStore, on_progress: ProgressCallback
    ) -> list[CaptionRecord]:
        """Return the finished captions of images in `directory`; `store` keeps what models write.

        Raises:
            Hand1000Error: A model cannot be loaded, or the endpoint does not answer.
        """
        captioner, captions = self._captioner, [to_plain_text(record.caption) for record in records]
        captioners = [DATASET_CAPTIONER] * len(records)
        if captioner is None:
            captions = [caption or FALLBACK_CAPTION for caption in captions]
        else:
            indices = [index for index, caption in enumerate(captions) if not (caption and self.keep_captions)]
            images = [directory / records[index].file_name for index in indices]
            written = compute_missing(
                [digest_file(image) for image in images],
                lambda batch: captioner.caption([images[index] for index in batch]),
                cache=store.key_value_cache("captions", digest_json(self._captioner_identity)),
                batch_size=self.settings.captioner.batch_size,
                on_progress=on_progress,
            )
            for index, caption in zip(indices, written, strict=True):
                captions[index], captioners[index] = str(caption), captioner.name
        completions = self._complete(captions, [record.gesture for record in records], store)
        on_progress(len(records), len(records), {})
        return [
            CaptionRecord(file_name=record.file_name, caption=caption, captioner=name, **completion.model_dump())
            for record, caption, name, completion in zip(records, captions, captioners, completions, strict=True)
        ]

    def vary_texts(
        self, captions: Sequence[CaptionRecord], records: Sequence[ImageRecord], split: str
    ) -> list[CaptionRecord]:
        """Return finished captions with the texts of `captions.training_phrase` and `captions.test_words`.

        Args:
            captions: Finished captions, some or all of the split's.
            records: Records of the whole split, which name its gestures.
            split: `train` or `test`.

        Raises:
            Hand1000Error: The phrases of a single gesture cannot be shuffled.
        """
        choice, words = self.settings.training_phrase, self.settings.test_words
        if choice == "own" if split == "train" else not words:
            return list(captions)
        by_name = {record.file_name: record for record in records}
        gestures = sorted({record.gesture for record in records})
        if split == "train" and choice == "shuffled" and len(gestures) < 2:
            raise Hand1000Error(
                f"captions.training_phrase: the phrase of {gestures[0]} alone cannot be shuffled; name several "
                "gestures, or choose own or none"
            )
        varied = []
        for caption in captions:
            record = by_name[caption.file_name]
            phrase = gesture_phrase(record.gesture)
            if split == "test":
                replacement = f"{words}, {phrase}"
            elif choice == "none":
                replacement = ""
            else:
                # By the image alone, so that shards do not matter.
                draw = derived_seed(0, "training phrase", record.source)
                replacement = gesture_phrase(gestures[draw % len(gestures)])
            before = caption.text.removesuffix(phrase).rstrip(" ,")
            text = ", ".join(part for part in (before, replacement) if part) or FALLBACK_CAPTION
            # Without its phrase a text is shorter than the one that fitted.
            fitting = fit_caption(text, replacement, self._limit) if replacement else text
            varied.append(
                caption.model_copy(update={"text": fitting, "shortened": caption.shortened or fitting != text})
            )
        return varied

    def _complete(self, captions: Sequence[str], gestures: Sequence[str], store: ArtifactStore) -> list[Completion]:
        def complete(indices: Sequence[int]) -> list[Completion]:
            return complete_captions(
                [captions[index] for index in indices],
                [gestures[index] for index in indices],
                writer=self._writer,
                limit=self._limit,
                attempts=self.settings.completion.attempts,
            )

        if self._writer is None:
            return complete(range(len(captions)))
        values = compute_missing(
            [digest_json(pair) for pair in zip(captions, gestures, strict=True)],
            lambda batch: [completion.model_dump(mode="json") for completion in complete(batch)],
            cache=store.key_value_cache("completions", digest_json(self._completion_identity)),
            batch_size=self.settings.completion.batch_size,
            on_progress=noop_callback,
        )
        return [Completion.model_validate(value) for value in values]

    @cached_property
    def _limit(self) -> TokenLimit:
        return load_token_limit(fetch_model_folder(self.base_model), self.base_model)


def read_captioned_split(dataset: Path, split: str, captions: Sequence[Path]) -> list[ImageRecord]:
    """Read the records of a split with the texts in `captions`, the folders of the captioning stage's shards.

    Raises:
        Hand1000Error: An image has no caption.
    """
    records = read_image_set(dataset / split)
    return apply_captions(records, read_caption_records(folder / f"{split}.jsonl" for folder in captions), split)


def apply_captions(
    records: Sequence[ImageRecord], captions: Mapping[str, CaptionRecord], split: str
) -> list[ImageRecord]:
    """Return `records` with the caption, captioner and text that `captions` has for each file name.

    Raises:
        Hand1000Error: An image has no caption; names `split` and the image.
    """
    missing = [record.file_name for record in records if record.file_name not in captions]
    if missing:
        raise Hand1000Error(f"{split}: {missing[0]}: no caption ({len(missing)} images have none); caption all shards")
    fields = {"text", "caption", "captioner"}
    return [record.model_copy(update=captions[record.file_name].model_dump(include=fields)) for record in records]
