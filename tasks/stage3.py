"""Stage III: fine-tune the UNet on the frozen embeddings, and put the model together around it."""

import os

from flytekit.types.directory import FlyteDirectory

from hand1000.config.settings import Settings
from tasks.context import Artifact, TaskContext, cluster_task, run_cached

PROCESSES = int(os.environ.get("HAND1000_PROCESSES", "1"))
NODES = int(os.environ.get("HAND1000_NODES", "1"))
"""Stage III's processes on a machine, a GPU each, and its machines: what a cluster has, hence not in the settings."""


@cluster_task()
def generate_class_images(
    prepared: FlyteDirectory, base_model: str, settings: Settings, run: str, root: str
) -> Artifact:
    """The base model's own pictures, to be trained on beside the gesture's; none unless the settings ask for them."""
    from hand1000.core.devices import best_device
    from hand1000.models.base_model import load_base_model
    from hand1000.pipelines.pipeline_hand1000 import build_pipeline
    from hand1000.storage.hub import model_identity
    from hand1000.training.encoded_dataset import EncodedDataset
    from hand1000.training.prior import generate_prior as draw

    count = settings.stage3.prior.images

    def build(work: TaskContext) -> None:
        if count:
            draw(
                build_pipeline(load_base_model(base_model, best_device()), **settings.generation.sampler_defaults()),
                EncodedDataset.load(work.read(prepared)).captions,
                count,
                seed=settings.seed,
                batch_size=settings.generation.batch_size,
                on_progress=work.report,
            ).save(work.out)

    inputs = {"prepared": prepared, "base_model": model_identity(base_model), "settings": settings.generation}
    return run_cached(
        "generate_class_images",
        root=root,
        run=run,
        build=build,
        inputs={"images": count, "seed": settings.seed, **inputs} if count else {"images": 0},
    )


@cluster_task(processes=PROCESSES, nodes=NODES)
def train_unet(
    prepared: FlyteDirectory,
    fusion: FlyteDirectory,
    embeddings: list[FlyteDirectory],
    prior: FlyteDirectory,
    base_model: str,
    settings: Settings,
    run: str,
    root: str,
) -> Artifact:
    """Fine-tune: the weights that were trained, the loss of each step, and the pictures drawn on the way."""
    from hand1000.models.fusion import load_fusion
    from hand1000.storage.hub import model_identity
    from hand1000.training.context import TrainContext
    from hand1000.training.distributed import init_distributed, local_device
    from hand1000.training.encoded_dataset import EncodedDataset
    from hand1000.training.prior import Prior
    from hand1000.training.stage2 import load_embeddings
    from hand1000.training.tuning import load_base_for_training, save_weights, tune_unet

    def build(work: TaskContext) -> None:
        data = EncodedDataset.load(work.read(prepared))
        layer = load_fusion(work.read(fusion))
        refined = load_embeddings([work.read(part) for part in embeddings], data.file_names)
        preserved = Prior.load(work.read(prior)) if settings.stage3.prior.images else None
        with init_distributed() as processes:
            weights, history = tune_unet(
                load_base_for_training(base_model, local_device(), settings),
                data,
                layer,
                refined,
                preserved,
                settings,
                TrainContext(
                    seed=settings.seed,
                    compute=settings.compute,
                    checkpoint=work.checkpoint,
                    on_progress=work.report,
                ),
                out=work.out,
                processes=processes,
            )
        if not processes.leads:
            return
        save_weights(weights, history, work.out)

    return run_cached(
        "train_unet",
        root=root,
        run=run,
        build=build,
        inputs={
            "prepared": prepared,
            "fusion": fusion,
            "embeddings": embeddings,
            "prior": prior,
            "base_model": model_identity(base_model),
            "seed": settings.seed,
            "stage2": settings.stage2.model_dump(
                include={"lambda_", "paper_loop", "embedding_steps", "embedding_learning_rate"}
            ),
            "settings": settings.stage3.cache_key_fields(),
            "precision": settings.compute.precision,
            "drawn": settings.generation.sampler_defaults() if settings.stage3.validation.images_drawn else None,
        },
    )


@cluster_task()
def assemble_model(
    trained: FlyteDirectory, fusion: FlyteDirectory, base_model: str, settings: Settings, run: str, root: str
) -> Artifact:
    """The whole model, a diffusers folder for `Hand1000Pipeline.from_pretrained`.

    Apart from the training, which does not depend on what the model draws with.
    """
    from hand1000.models.base_model import load_base_model
    from hand1000.models.fusion import load_fusion
    from hand1000.storage.hub import model_identity
    from hand1000.training.tuning import load_weights, save_pipeline

    def build(work: TaskContext) -> None:
        weights, layer = load_weights(work.read(trained)), load_fusion(work.read(fusion))
        save_pipeline(load_base_model(base_model), weights, layer, settings, work.out)

    return run_cached(
        "assemble_model",
        root=root,
        run=run,
        build=build,
        inputs={
            "trained": trained,
            "fusion": fusion,
            "base_model": model_identity(base_model),
            "lora": settings.stage3.cache_key_fields().get("lora"),
            "defaults": settings.generation.sampler_defaults(),
        },
    )
