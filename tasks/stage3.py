"""Stage III: fine-tune the UNet on the frozen embeddings, and assemble the model around it."""

import os

from flytekit.types.directory import FlyteDirectory

from hand1000.config.settings import Settings
from hand1000.models.base_model import load_base_model
from tasks.context import BaseModelAddress, TaskContext
from tasks.decorators import artifact_task
from tasks.generation import base_pipeline

PROCESSES = int(os.environ.get("HAND1000_PROCESSES", "1"))
NODES = int(os.environ.get("HAND1000_NODES", "1"))
"""Stage III's processes on a machine, one GPU each, and its machines: properties of the cluster, hence no settings."""


@artifact_task(key_by={"settings": Settings.class_images_key_fields})
def generate_class_images(
    context: TaskContext, encoded: FlyteDirectory, base_model: BaseModelAddress, settings: Settings
) -> None:
    """The base model's own images for prior preservation; an empty artifact unless the settings ask for them."""
    from hand1000.training.encoded_dataset import EncodedDataset
    from hand1000.training.prior import generate_prior

    if not settings.stage3.prior.images:
        return
    prior = generate_prior(
        base_pipeline(base_model, settings.generation),
        EncodedDataset.load(context.download(encoded)).captions,
        settings.stage3.prior.images,
        seed=settings.seed,
        batch_size=settings.generation.batch_size,
        checkpoint=context.checkpoint,
        on_progress=context.on_progress,
    )
    prior.save(context.output_dir)


@artifact_task(key_by={"settings": Settings.unet_key_fields}, processes=PROCESSES, nodes=NODES)
def train_unet(
    context: TaskContext,
    encoded: FlyteDirectory,
    fusion: FlyteDirectory,
    embeddings: list[FlyteDirectory],
    class_images: FlyteDirectory,
    base_model: BaseModelAddress,
    settings: Settings,
) -> None:
    """Fine-tune the UNet: the trained weights, the loss of each step, and the images of the validation."""
    from hand1000.models.fusion import load_fusion
    from hand1000.paper.interleaved import train_interleaved
    from hand1000.training.distributed import init_distributed, local_device
    from hand1000.training.encoded_dataset import EncodedDataset
    from hand1000.training.prior import Prior
    from hand1000.training.stage2 import load_embeddings
    from hand1000.training.stage3_io import Stage3Inputs, load_base_for_training, save_weights, setup_stage3

    data = EncodedDataset.load(context.download(encoded))
    prior = Prior.load(context.download(class_images)) if settings.stage3.prior.images else None
    optimized = load_embeddings(context.download_all(embeddings), data.file_names)
    inputs = Stage3Inputs(data, load_fusion(context.download(fusion)), optimized, prior)
    train_context = context.train_context(settings.seed, settings.compute)
    with init_distributed() as distributed:
        base = load_base_for_training(base_model, local_device(), settings)
        if settings.stage2.paper_loop:
            weights, history = train_interleaved(
                base, data.latents, optimized, settings.stage2, settings.stage3, train_context
            )
        else:
            trainer = setup_stage3(base, inputs, settings, train_context, context.output_dir, distributed)
            weights, history = trainer.train()
    if distributed.is_main_process:
        save_weights(weights, history, context.output_dir)


@artifact_task(key_by={"settings": Settings.model_key_fields})
def assemble_model(
    context: TaskContext,
    trained: FlyteDirectory,
    fusion: FlyteDirectory,
    base_model: BaseModelAddress,
    settings: Settings,
) -> None:
    """The whole model, a diffusers folder for `Hand1000Pipeline.from_pretrained`.

    It is apart from the training, which does not depend on the sampler's defaults.
    """
    from hand1000.models.fusion import load_fusion
    from hand1000.training.stage3_io import load_weights, save_pipeline

    weights, layer = load_weights(context.download(trained)), load_fusion(context.download(fusion))
    save_pipeline(load_base_model(base_model), weights, layer, settings, context.output_dir)
