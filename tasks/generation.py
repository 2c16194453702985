"""Generate an image of each test prompt with the base model, the champion and the tuned model."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flytekit.types.directory import FlyteDirectory

from hand1000.config.settings import GenerationSettings
from hand1000.core.devices import best_device
from hand1000.models.base_model import load_base_model
from hand1000.storage.files import write_json
from tasks.context import BaseModelAddress, RunContext, TaskContext, shard_slice
from tasks.decorators import artifact_task, logger

if TYPE_CHECKING:
    from hand1000.data.imageset import ImageRecord
    from hand1000.pipelines.generation import ImageGenerator
    from hand1000.pipelines.pipeline_hand1000 import Hand1000Pipeline


@artifact_task(key_by={"settings": GenerationSettings.base_model_variant})
def generate_base(  # noqa: PLR0913 (Flyte signature)
    context: TaskContext,
    base_model: BaseModelAddress,
    dataset: FlyteDirectory,
    captions: list[FlyteDirectory],
    shard: int,
    shards: int,
    settings: GenerationSettings,
    seed: int,
) -> None:
    """One shard of the base model's images, the same whatever the sampler settings of the tuned model."""
    pipeline = base_pipeline(base_model, settings.base_model_variant())
    _generate_shard(context, pipeline, dataset, captions, shard, shards, settings, seed)


@artifact_task()
def generate_tuned(  # noqa: PLR0913 (Flyte signature)
    context: TaskContext,
    model: FlyteDirectory,
    dataset: FlyteDirectory,
    captions: list[FlyteDirectory],
    shard: int,
    shards: int,
    settings: GenerationSettings,
    seed: int,
) -> None:
    """One shard of the tuned model's images: the same prompts and seeds."""
    from hand1000.pipelines.pipeline_hand1000 import load_pipeline

    _generate_shard(context, load_pipeline(context.download(model)), dataset, captions, shard, shards, settings, seed)


def load_champion_digest(run: RunContext, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The digest of the champion's weights, which decides its images; "" without a champion."""
    from hand1000.registry.versions import MODEL_DIGEST

    if not (champion := inputs["champion"]):
        return {"champion_digest": ""}
    return {"champion_digest": run.find_version(champion).tags[MODEL_DIGEST]}


@artifact_task(
    load=load_champion_digest,
    excluded=("champion",),
    key_by={"settings": lambda settings: [settings.num_images, settings.batch_size]},
)
def generate_champion(  # noqa: PLR0913 (Flyte signature)
    context: TaskContext,
    champion: str,
    dataset: FlyteDirectory,
    captions: list[FlyteDirectory],
    shard: int,
    shards: int,
    settings: GenerationSettings,
    seed: int,
) -> None:
    """One shard of the images of the registered model `champion`: the same prompts and seeds, its own sampler."""
    from hand1000.registry.load import load_pipeline

    pipeline = load_pipeline(champion, registry=context.run.connect_mlflow())
    _generate_shard(context, pipeline, dataset, captions, shard, shards, settings, seed)


@artifact_task(load=load_champion_digest, excluded=("champion",))
def generate_general(  # noqa: PLR0913 (Flyte signature)
    context: TaskContext,
    base_model: BaseModelAddress,
    champion: str,
    model: FlyteDirectory,
    dataset: FlyteDirectory,
    captions: list[FlyteDirectory],
    images: int,
    other_gesture_images: int,
    settings: GenerationSettings,
    seed: int,
) -> None:
    """Images of prompts without the gesture: an image set of each model, `base`, `tuned` and perhaps `champion`.

    Those of prompts that name other gestures are in folders of the same names in `other_gestures`. The tuned models use
    the plain text embeddings, mu 1. A number of 0 leaves images out.
    """
    from hand1000.data.captioning import read_captioned_split
    from hand1000.evaluation.general import OTHER_GESTURES, plan_general_images, plan_other_gesture_images
    from hand1000.pipelines.generation import pipeline_generator
    from hand1000.pipelines.pipeline_hand1000 import load_pipeline
    from hand1000.registry.load import load_pipeline as load_registered

    prompts = read_captioned_split(context.download(dataset), "test", context.download_all(captions))
    image_sets = {
        "": plan_general_images(prompts, images, seed),
        OTHER_GESTURES: plan_other_gesture_images(prompts, other_gesture_images, seed),
    }
    if not any(image_sets.values()):
        return
    loaders = {
        "base": lambda: base_pipeline(base_model, settings.base_model_variant()),
        "tuned": lambda: load_pipeline(context.download(model)),
        "champion": lambda: load_registered(champion, registry=context.run.connect_mlflow()),
    }
    for name, load in loaders.items():
        if name != "champion" or champion:
            generator = pipeline_generator(load(), mu=1.0)
            for folder, records in image_sets.items():
                if records:
                    generate_records(context, generator, records, settings, subfolder=str(Path(folder) / name))


@artifact_task(key_by={"settings": lambda settings: [settings.num_images, settings.batch_size]})
def generate_export(  # noqa: PLR0913 (Flyte signature)
    context: TaskContext,
    model: FlyteDirectory,
    dataset: FlyteDirectory,
    captions: list[FlyteDirectory],
    images: int,
    settings: GenerationSettings,
    seed: int,
) -> None:
    """The first `images` of the tuned model's images as its export draws them: the same prompts and seeds.

    `export.json` says at which mu, or why there are none: `images` is 0, or they would be the same images.
    """
    from hand1000.data.captioning import read_captioned_split
    from hand1000.export.measured import EXPORT_METRICS, ExportMetrics
    from hand1000.export.sampler import explain_unmeasured, export_sampler
    from hand1000.pipelines.generation import pipeline_generator, plan_generation
    from hand1000.pipelines.pipeline_hand1000 import load_pipeline

    pipeline = load_pipeline(context.download(model)) if images else None
    note = explain_unmeasured(pipeline) if pipeline else "Exports were not measured: evaluation.export_images is 0."
    mu = None if pipeline is None or note else pipeline.config.mu
    write_json(context.output_dir / EXPORT_METRICS, ExportMetrics(mu=mu, note=note))
    if pipeline is None or note:
        logger.info("generate_export: no images: %s", note)
        return
    prompts = read_captioned_split(context.download(dataset), "test", context.download_all(captions))
    records = plan_generation(prompts, settings.num_images, seed)[:images]
    generate_records(context, pipeline_generator(pipeline, **export_sampler(pipeline)), records, settings)


def base_pipeline(base_model: str, settings: GenerationSettings) -> "Hand1000Pipeline":
    """The pipeline of the base model, which samples as `settings` say."""
    from hand1000.pipelines.pipeline_hand1000 import build_pipeline

    pipeline = build_pipeline(load_base_model(base_model, best_device()), **settings.sampler_defaults())
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def generate_records(
    context: TaskContext,
    generator: "ImageGenerator",
    records: "list[ImageRecord]",
    settings: GenerationSettings,
    subfolder: str = "",
) -> None:
    """Fill the artifact, or a folder of it, with the image set that `records` ask for.

    Each record names its prompt, seed and gesture.
    """
    from hand1000.data.imageset import write_metadata
    from hand1000.pipelines.generation import GenerationRequest, generate_to_dir

    folder = context.output_dir / subfolder
    folder.mkdir(parents=True, exist_ok=True)
    requests = [GenerationRequest.from_record(record) for record in records]
    generate_to_dir(
        generator,
        # A checkpoint has the images of all folders so far, so that names are relative to the artifact.
        [dataclasses.replace(item, file_name=str(Path(subfolder) / item.file_name)) for item in requests],
        context.output_dir,
        batch_size=settings.batch_size,
        checkpoint=context.checkpoint,
        on_progress=context.on_progress,
    )
    write_metadata(folder, records)


def _generate_shard(  # noqa: PLR0913 (the inputs of two tasks)
    context: TaskContext,
    pipeline: "Hand1000Pipeline",
    dataset: FlyteDirectory,
    captions: list[FlyteDirectory],
    shard: int,
    shards: int,
    settings: GenerationSettings,
    seed: int,
) -> None:
    from hand1000.data.captioning import read_captioned_split
    from hand1000.pipelines.generation import pipeline_generator, plan_generation

    prompts = read_captioned_split(context.download(dataset), "test", context.download_all(captions))
    records = plan_generation(prompts, settings.num_images, seed)
    part = records[shard_slice(len(records), settings.batch_size, shard, shards)]
    generate_records(context, pipeline_generator(pipeline), part, settings)
