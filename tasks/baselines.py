"""The comparison's methods that edit another method's images: Imagic and HandRefiner."""

from typing import TYPE_CHECKING

from flytekit.types.directory import FlyteDirectory

from hand1000.config.comparison import HandRefinerSettings, ImagicSettings
from hand1000.config.settings import ComputeSettings, GenerationSettings
from hand1000.storage.hub import model_identity
from tasks.context import BaseModelAddress, TaskContext
from tasks.decorators import artifact_task
from tasks.generation import base_pipeline, generate_records

if TYPE_CHECKING:
    from hand1000.pipelines.pipeline_hand1000 import Hand1000Pipeline


@artifact_task(key_by={"settings": GenerationSettings.sampler_defaults}, excluded=("shard",))
def imagic_base(  # noqa: PLR0913 (Flyte signature)
    context: TaskContext,
    images: FlyteDirectory,
    shard: int,
    base_model: BaseModelAddress,
    imagic: ImagicSettings,
    settings: GenerationSettings,
    compute: ComputeSettings,
    seed: int,
) -> None:
    """One shard of the base model's images, edited by Imagic with the base model."""
    _edit_by_imagic(context, images, base_pipeline(base_model, settings), imagic, settings, compute, seed)


@artifact_task(excluded=("shard", "settings"))
def imagic_tuned(  # noqa: PLR0913 (Flyte signature)
    context: TaskContext,
    images: FlyteDirectory,
    shard: int,
    model: FlyteDirectory,
    imagic: ImagicSettings,
    settings: GenerationSettings,
    compute: ComputeSettings,
    seed: int,
) -> None:
    """One shard of a tuned model's images, edited by Imagic with that model, which samples by its own defaults."""
    from hand1000.pipelines.pipeline_hand1000 import load_pipeline

    _edit_by_imagic(context, images, load_pipeline(context.download(model)), imagic, settings, compute, seed)


def _edit_by_imagic(  # noqa: PLR0913 (the inputs of two tasks)
    context: TaskContext,
    images: FlyteDirectory,
    pipeline: "Hand1000Pipeline",
    imagic: ImagicSettings,
    settings: GenerationSettings,
    compute: ComputeSettings,
    seed: int,
) -> None:
    from hand1000.baselines.imagic import imagic_generator
    from hand1000.data.imageset import read_image_set
    from hand1000.pipelines.generation import load_generated
    from hand1000.training.context import TrainContext

    folder = context.download(images)
    training = TrainContext(seed=seed, compute=compute)
    generator = imagic_generator(load_generated(folder), pipeline=pipeline, settings=imagic, context=training)
    generate_records(context, generator, read_image_set(folder), settings)


def _refiner_key(refiner: HandRefinerSettings) -> HandRefinerSettings:
    """The settings with the identities of the models in place of their addresses."""
    models = ("controlnet", "inpainting_model")
    return refiner.model_copy(update={name: model_identity(getattr(refiner, name)) for name in models})


@artifact_task(key_by={"refiner": _refiner_key}, excluded=("shard", "settings"))
def refine_hands(
    context: TaskContext,
    images: FlyteDirectory,
    shard: int,
    base_model: BaseModelAddress,
    refiner: HandRefinerSettings,
    settings: GenerationSettings,
) -> None:
    """One shard of the base model's images, their hands painted again by HandRefiner."""
    from hand1000.baselines.hand_refiner import hand_refiner_generator
    from hand1000.core.devices import best_device
    from hand1000.data.imageset import read_image_set
    from hand1000.models.base_model import load_base_model
    from hand1000.pipelines.controlnet import load_controlnet
    from hand1000.pipelines.generation import load_generated

    folder, device = context.download(images), best_device()
    generator = hand_refiner_generator(
        load_generated(folder),
        base=load_base_model(refiner.inpainting_model or base_model, device),
        controlnet=load_controlnet(refiner.controlnet, device),
        settings=refiner,
    )
    generate_records(context, generator, read_image_set(folder), settings)
