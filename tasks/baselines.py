"""Redraw another system's pictures: Imagic, over the base model or a tuned one, and HandRefiner."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from flytekit.types.directory import FlyteDirectory

from hand1000.config.comparison import HandRefinerSettings, ImagicSettings
from hand1000.config.settings import ComputeSettings, GenerationSettings
from tasks.context import Artifact, TaskContext, cluster_task, run_cached

if TYPE_CHECKING:
    from hand1000.pipelines.generation import ImageGenerator


def regenerate(
    work: TaskContext, pictures: FlyteDirectory, over: "Callable[[ImageGenerator], ImageGenerator]", batch_size: int
) -> None:
    """Fill `work.out` with what `over`, given the system that drew `pictures`, draws for their prompts and seeds."""
    from hand1000.data.imageset import read_image_set, write_metadata
    from hand1000.pipelines.generation import GenerationRequest, generate_to_dir, load_generated

    folder = work.read(pictures)
    records = read_image_set(folder)
    generate_to_dir(
        over(load_generated(folder)),
        [GenerationRequest.from_record(record) for record in records],
        work.out,
        batch_size=batch_size,
        checkpoint=work.checkpoint,
        on_progress=work.report,
    )
    write_metadata(work.out, records)


def _imagic(
    task_name: str,
    pictures: FlyteDirectory,
    model: FlyteDirectory | None,
    base_model: str,
    shard: int,
    imagic: ImagicSettings,
    settings: GenerationSettings,
    compute: ComputeSettings,
    seed: int,
    run: str,
    root: str,
) -> FlyteDirectory:
    from hand1000.storage.hub import model_identity

    def build(work: TaskContext) -> None:
        from hand1000.baselines.imagic import imagic_generator
        from hand1000.core.devices import best_device
        from hand1000.models.base_model import load_base_model
        from hand1000.pipelines.pipeline_hand1000 import build_pipeline, load_pipeline
        from hand1000.training.context import TrainContext

        if model is None:
            pipeline = build_pipeline(load_base_model(base_model, best_device()), **settings.sampler_defaults())
            pipeline.set_progress_bar_config(disable=True)
        else:
            pipeline = load_pipeline(work.read(model))
        edited = partial(
            imagic_generator, pipeline=pipeline, settings=imagic, context=TrainContext(seed=seed, compute=compute)
        )
        regenerate(work, pictures, edited, settings.batch_size)

    inputs: dict[str, Any] = {
        "pictures": pictures,
        "model": model_identity(base_model) if model is None else model,
        "imagic": imagic,
        "seed": seed,
        "precision": compute.precision,
    }
    if model is None:
        inputs["settings"] = settings.sampler_defaults()
    return run_cached(task_name, root=root, run=run, build=build, label=f"shard {shard + 1}", inputs=inputs)


@cluster_task()
def imagic_base(
    pictures: FlyteDirectory,
    shard: int,
    base_model: str,
    imagic: ImagicSettings,
    settings: GenerationSettings,
    compute: ComputeSettings,
    seed: int,
    run: str,
    root: str,
) -> Artifact:
    """One shard of the base model's pictures, edited by Imagic with the base model."""
    return _imagic("imagic_base", pictures, None, base_model, shard, imagic, settings, compute, seed, run, root)


@cluster_task()
def imagic_tuned(
    pictures: FlyteDirectory,
    shard: int,
    model: FlyteDirectory,
    imagic: ImagicSettings,
    settings: GenerationSettings,
    compute: ComputeSettings,
    seed: int,
    run: str,
    root: str,
) -> Artifact:
    """One shard of a tuned model's pictures, edited by Imagic with that model."""
    return _imagic("imagic_tuned", pictures, model, "", shard, imagic, settings, compute, seed, run, root)


@cluster_task()
def refine_hands(
    pictures: FlyteDirectory,
    shard: int,
    base_model: str,
    refiner: HandRefinerSettings,
    settings: GenerationSettings,
    run: str,
    root: str,
) -> Artifact:
    """One shard of the base model's pictures, their hands painted anew by HandRefiner."""
    from hand1000.storage.hub import model_identity

    painter = refiner.inpainting_model or base_model

    def build(work: TaskContext) -> None:
        from hand1000.baselines.hand_refiner import hand_refiner_generator
        from hand1000.core.devices import best_device
        from hand1000.models.base_model import load_base_model
        from hand1000.training.train_controlnet import load_controlnet

        device = best_device()
        base, controlnet = load_base_model(painter, device), load_controlnet(refiner.controlnet, device)
        mended = partial(hand_refiner_generator, base=base, controlnet=controlnet, settings=refiner)
        regenerate(work, pictures, mended, settings.batch_size)

    models = {"controlnet": model_identity(refiner.controlnet), "inpainting_model": model_identity(painter)}
    return run_cached(
        "refine_hands",
        root=root,
        run=run,
        build=build,
        label=f"shard {shard + 1}",
        inputs={"pictures": pictures, "refiner": refiner.model_copy(update=models)},
    )
