"""Generate an image of each test prompt with the base model and with the tuned one."""

from typing import TYPE_CHECKING

from flytekit.types.directory import FlyteDirectory

from hand1000.config.settings import GenerationSettings
from hand1000.core.devices import best_device
from hand1000.models.base_model import load_base_model
from tasks.context import BaseModelAddress, TaskContext, shard_slice
from tasks.decorators import artifact_task

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


def base_pipeline(base_model: str, settings: GenerationSettings) -> "Hand1000Pipeline":
    """The pipeline of the base model, which samples as `settings` say."""
    from hand1000.pipelines.pipeline_hand1000 import build_pipeline

    pipeline = build_pipeline(load_base_model(base_model, best_device()), **settings.sampler_defaults())
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def generate_records(
    context: TaskContext, generator: "ImageGenerator", records: "list[ImageRecord]", settings: GenerationSettings
) -> None:
    """Fill the artifact with the image set that `records` ask for: each names its prompt, seed and gesture."""
    from hand1000.data.imageset import write_metadata
    from hand1000.pipelines.generation import GenerationRequest, generate_to_dir

    generate_to_dir(
        generator,
        [GenerationRequest.from_record(record) for record in records],
        context.output_dir,
        batch_size=settings.batch_size,
        checkpoint=context.checkpoint,
        on_progress=context.on_progress,
    )
    write_metadata(context.output_dir, records)


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
