"""Stage II: encode the data once, train the fusion, refine each image's embedding."""

from flytekit.types.directory import FlyteDirectory

from hand1000.config.settings import ComputeSettings, Stage2Settings
from tasks.context import Artifact, TaskContext, cluster_task, run_cached, shard_range


@cluster_task()
def encode_data(
    dataset: FlyteDirectory, captions: list[FlyteDirectory], base_model: str, run: str, root: str
) -> Artifact:
    """Latents and text embeddings of the training images, what both later stages read."""
    from hand1000.core.devices import best_device
    from hand1000.data.captioning import read_captioned_split
    from hand1000.models.base_model import load_base_model
    from hand1000.storage.hub import model_identity
    from hand1000.training.encoded_dataset import encode_dataset

    def build(work: TaskContext) -> None:
        folder = work.read(dataset)
        records = read_captioned_split(folder, "train", [work.read(part) for part in captions])
        base = load_base_model(base_model, best_device())
        encode_dataset(base, folder / "train", records, work.report).save(work.out)

    return run_cached(
        "encode_data",
        root=root,
        run=run,
        build=build,
        inputs={"dataset": dataset, "captions": captions, "base_model": model_identity(base_model)},
    )


@cluster_task()
def train_fusion(
    prepared: FlyteDirectory,
    feature: FlyteDirectory,
    base_model: str,
    settings: Stage2Settings,
    compute: ComputeSettings,
    seed: int,
    run: str,
    root: str,
) -> Artifact:
    """Train the fusion layer over all images through the frozen UNet."""
    from hand1000.core.devices import best_device
    from hand1000.hands.poses import HandPoses
    from hand1000.hands.stage1 import load_features
    from hand1000.models.base_model import load_base_model
    from hand1000.storage.files import write_jsonl
    from hand1000.storage.hub import model_identity
    from hand1000.training.context import TrainContext
    from hand1000.training.encoded_dataset import EncodedDataset
    from hand1000.training.precision import weight_dtype
    from hand1000.training.stage2 import train_fusion as train

    def build(work: TaskContext) -> None:
        data = EncodedDataset.load(work.read(prepared))
        fusion, history = train(
            load_base_model(base_model, best_device(), unet_dtype=weight_dtype(compute), unet_only=True),
            data,
            {one.gesture: one.mean_tensor() for one in load_features(work.read(feature))},
            settings,
            TrainContext(seed=seed, compute=compute, checkpoint=work.checkpoint, on_progress=work.report),
            poses=HandPoses.load(work.read(feature)).select(data.file_names),
        )
        fusion.save_pretrained(work.out)
        write_jsonl(work.out / "history.jsonl", history)

    return run_cached(
        "train_fusion",
        root=root,
        run=run,
        build=build,
        inputs={
            "prepared": prepared,
            "feature": feature,
            "base_model": model_identity(base_model),
            "seed": seed,
            "precision": compute.precision,
            "settings": settings.model_dump(
                include={"lambda_", "fusion", "fusion_steps", "fusion_batch_size", "fusion_learning_rate"}
            ),
        },
    )


@cluster_task()
def refine_embeddings(
    prepared: FlyteDirectory,
    feature: FlyteDirectory,
    fusion: FlyteDirectory,
    base_model: str,
    shard: int,
    shards: int,
    settings: Stage2Settings,
    compute: ComputeSettings,
    seed: int,
    run: str,
    root: str,
) -> Artifact:
    """Optimise the embedding of each image of one shard: the paper's Stage II.

    Where Stage III refines each image itself, as the authors do, it is given where the fusion puts them.
    """
    from hand1000.core.devices import best_device
    from hand1000.hands.poses import HandPoses
    from hand1000.models.base_model import load_base_model
    from hand1000.models.fusion import double_fusion, gesture_indices, load_fusion
    from hand1000.storage.files import write_jsonl
    from hand1000.storage.hub import model_identity
    from hand1000.training.context import TrainContext
    from hand1000.training.encoded_dataset import EncodedDataset
    from hand1000.training.precision import weight_dtype
    from hand1000.training.stage2 import optimize_all_embeddings as refine
    from hand1000.training.stage2 import save_embeddings

    def build(work: TaskContext) -> None:
        data = EncodedDataset.load(work.read(prepared))
        layer = load_fusion(work.read(fusion))
        part = shard_range(len(data.latents), settings.embedding_batch_size, shard, shards)
        span = slice(part.start, part.stop)
        # Of all images: of a shard alone the product would be rounded otherwise, and the bits depend on the shards.
        start = double_fusion(
            data.text_embeddings,
            layer,
            settings.lambda_,
            gesture_indices(layer, data.gestures),
            HandPoses.load(work.read(feature)).select(data.file_names).tensor(),
        ).detach()[span]
        embeddings, history = refine(
            load_base_model(base_model, best_device(), unet_dtype=weight_dtype(compute), unet_only=True),
            data.latents[span],
            start,
            data.file_names[span],
            settings,
            TrainContext(seed=seed, compute=compute, checkpoint=work.checkpoint, on_progress=work.report),
        )
        save_embeddings(work.out, embeddings, data.file_names[span])
        write_jsonl(work.out / "history.jsonl", [{**row, "step": part.start + row["step"]} for row in history])

    return run_cached(
        "refine_embeddings",
        root=root,
        run=run,
        build=build,
        label=f"shard {shard + 1} of {shards}",
        inputs={
            "prepared": prepared,
            "feature": feature,
            "fusion": fusion,
            "base_model": model_identity(base_model),
            "shard": shard,
            "shards": shards,
            "seed": seed,
            "precision": compute.precision,
            "settings": settings.model_dump(
                include={"lambda_", "embedding_steps", "embedding_batch_size", "embedding_learning_rate", "paper_loop"}
            ),
        },
    )
