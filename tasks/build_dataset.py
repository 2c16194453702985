"""Captions of the images, and a published dataset with them."""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from flytekit.types.directory import FlyteDirectory

from hand1000.config.caption_settings import CaptionSettings, DatasetSettings
from hand1000.gestures import gesture_phrase
from hand1000.storage.files import write_json, write_text
from hand1000.storage.hub import model_identity
from tasks.context import RunContext, TaskContext, shard_slice
from tasks.decorators import artifact_task, cluster_task, shard_label

SPLITS = ("train", "test")
ENDPOINT_KEY = "HAND1000_ENDPOINT_KEY"
SAMPLES = 24
"""Number of images on the page that shows the captions side by side."""


class CaptioningJobs(NamedTuple):
    """The inputs of the map task of `build_dataset`: one job for each captioner and shard."""

    settings: list[CaptionSettings]
    shard: list[int]


@cluster_task()
def captioning_jobs(gesture: str, settings: DatasetSettings, shards: int) -> CaptioningJobs:
    """The jobs, by captioner, then by shard; an unknown gesture is reported at once."""
    gesture_phrase(gesture)
    captioners = [
        CaptionSettings(captioner=kind, completion=settings.completion, training_phrase="own", test_words="")
        for kind in settings.captioners
    ]
    return CaptioningJobs(
        settings=[captioner for captioner in captioners for _ in range(shards)],
        shard=list(range(shards)) * len(captioners),
    )


def load_captioning(run: RunContext, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The captioner and the writer, whose models load when they are first used."""
    from hand1000.data.captioning import CaptioningStage

    key, keep_captions = os.environ.get(ENDPOINT_KEY, ""), inputs["keep_captions"]
    return {"stage": CaptioningStage(inputs["settings"], inputs["base_model"], key, keep_captions)}


@artifact_task(
    load=load_captioning,
    excluded=("settings", "base_model", "keep_captions"),
    label=lambda inputs: f"{inputs['settings'].captioner.kind} {shard_label(inputs)}",
)
def caption_images(
    context: TaskContext,
    dataset: FlyteDirectory,
    settings: CaptionSettings,
    base_model: str,
    keep_captions: bool,
    shard: int,
    shards: int,
) -> None:
    """Caption one shard of both splits and complete the captions: `train.jsonl` and `test.jsonl`."""
    from hand1000.captions.records import write_caption_records
    from hand1000.data.imageset import read_image_set

    for split in SPLITS:
        folder = context.download(dataset) / split
        records = read_image_set(folder)
        part = records[shard_slice(len(records), 1, shard, shards)]
        captions = context.loaded["stage"].caption_records(folder, part, context.run.open_store(), context.on_progress)
        captions = context.loaded["stage"].vary_texts(captions, records, split)
        write_caption_records(context.output_dir / f"{split}.jsonl", captions)


def load_clip(run: RunContext, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The identity of CLIP, which measures captions; "" without one."""
    return {"clip": model_identity(inputs["settings"].clip)}


@artifact_task(load=load_clip, excluded=("settings", "shards"))
def publish(
    context: TaskContext,
    dataset: FlyteDirectory,
    captions: list[FlyteDirectory],
    gesture: str,
    settings: DatasetSettings,
    shards: int,
) -> None:
    """The dataset with its card, and beside it `quality.json` and `captions.html`, every captioner side by side."""
    from hand1000.captions.metrics import caption_metrics_table, compute_caption_metrics
    from hand1000.captions.records import read_caption_records
    from hand1000.data.publish import publish_dataset
    from hand1000.models.clip import Clip
    from hand1000.reports.html import render_template

    clip = Clip(settings.clip) if settings.clip else None
    prepared, folders = context.download(dataset), context.download_all(captions)
    by_captioner = [
        {split: read_caption_records([folder / f"{split}.jsonl" for folder in folders[start : start + shards]])
         for split in SPLITS}
        for start in range(0, len(folders), shards)
    ]  # fmt: skip
    quality = []
    for records in by_captioner:
        named = [(split, record) for split in SPLITS for _, record in sorted(records[split].items())]
        quality.append(
            compute_caption_metrics(
                [prepared / split / record.file_name for split, record in named],
                [record.text for _, record in named],
                gesture,
                captioner=named[0][1].captioner,
                clip=clip,
                on_progress=context.on_progress,
            )
        )
    publish_dataset(prepared, by_captioner[0], quality, context.output_dir)
    write_json(context.output_dir / "quality.json", [metrics.model_dump(mode="json") for metrics in quality])
    names = sorted(by_captioner[0]["train"])[:SAMPLES]
    rows = [(prepared / "train" / name, [records["train"][name] for records in by_captioner]) for name in names]
    page = render_template("captions.html.j2", gesture=gesture, metrics=caption_metrics_table(quality), rows=rows)
    write_text(context.output_dir / "captions.html", page)
