"""Draw the held-out prompts with the base model and with the tuned one."""

from flytekit.types.directory import FlyteDirectory

from hand1000.config.settings import GenerationSettings
from tasks.context import Artifact, TaskContext, cluster_task, run_cached, shard_range


def generate_images(
    task_name: str,
    model: FlyteDirectory | None,
    base_model: str,
    dataset: FlyteDirectory,
    captions: list[FlyteDirectory],
    shard: int,
    shards: int,
    settings: GenerationSettings,
    seed: int,
    run: str,
    root: str,
) -> FlyteDirectory:
    from hand1000.data.captioning import read_captioned_split
    from hand1000.data.imageset import write_metadata
    from hand1000.gestures import group_by_gesture
    from hand1000.storage.hub import model_identity

    def build(work: TaskContext) -> None:
        from hand1000.core.devices import best_device
        from hand1000.models.base_model import load_base_model
        from hand1000.pipelines.generation import GenerationRequest, generate_to_dir, pipeline_generator
        from hand1000.pipelines.pipeline_hand1000 import build_pipeline, load_pipeline

        prompts = read_captioned_split(work.read(dataset), "test", [work.read(part) for part in captions])
        if model is None:
            pipeline = build_pipeline(load_base_model(base_model, best_device()), **settings.sampler_defaults())
        else:
            pipeline = load_pipeline(work.read(model))
        gestures = list(group_by_gesture(prompts).values())
        part = shard_range(len(gestures) * settings.num_images, settings.batch_size, shard, shards)
        # The gestures in turn, and of each the held-out prompts, again from the first where there are not enough.
        records = []
        for index in part:
            turn, place = divmod(index, len(gestures))
            record = gestures[place][turn % len(gestures[place])]
            drawn = {"file_name": f"{index:06d}.png", "seed": seed + index, "bbox": None}
            records.append(record.model_copy(update=drawn))
        orders = [
            GenerationRequest(record.file_name, record.text, seed + index, record.gesture)
            for index, record in zip(part, records, strict=True)
        ]
        generate_to_dir(
            pipeline_generator(pipeline),
            orders,
            work.out,
            batch_size=settings.batch_size,
            checkpoint=work.checkpoint,
            on_progress=work.report,
        )
        write_metadata(work.out, records)

    return run_cached(
        task_name,
        root=root,
        run=run,
        build=build,
        label=f"shard {shard + 1} of {shards}",
        inputs={
            "model": model_identity(base_model) if model is None else model,
            "dataset": dataset,
            "captions": captions,
            "shard": shard,
            "shards": shards,
            "seed": seed,
            "settings": settings,
        },
    )


@cluster_task()
def generate_base(
    base_model: str,
    dataset: FlyteDirectory,
    captions: list[FlyteDirectory],
    shard: int,
    shards: int,
    settings: GenerationSettings,
    seed: int,
    run: str,
    root: str,
) -> Artifact:
    """One shard of the base model's pictures, the same whatever the tuned one is drawn with."""
    bare = settings.base_model_variant()
    return generate_images("generate_base", None, base_model, dataset, captions, shard, shards, bare, seed, run, root)


@cluster_task()
def generate_tuned(
    model: FlyteDirectory,
    dataset: FlyteDirectory,
    captions: list[FlyteDirectory],
    shard: int,
    shards: int,
    settings: GenerationSettings,
    seed: int,
    run: str,
    root: str,
) -> Artifact:
    """One shard of the tuned model's pictures: the same prompts and seeds."""
    return generate_images("generate_tuned", model, "", dataset, captions, shard, shards, settings, seed, run, root)
