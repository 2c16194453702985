"""Stage II: encode the images and captions once, train the fusion, optimize the embedding of each image."""

from flytekit.types.directory import FlyteDirectory

from hand1000.config.settings import ComputeSettings, Stage2Settings
from hand1000.core.devices import best_device
from hand1000.models.base_model import load_base_model
from hand1000.storage.files import write_jsonl
from tasks.context import Artifact, BaseModelAddress, TaskContext, TaskResult, address, shard_slice
from tasks.decorators import artifact_task


def report_captions(result: TaskResult) -> Artifact:
    """Print which training captions were shortened, and log their number, also when an earlier run encoded them."""
    from hand1000.captions.chat_tokenizer import load_token_limit
    from hand1000.captions.records import read_caption_records
    from hand1000.captions.token_limit import describe_shortened
    from hand1000.models.base_model import resolve_base_model

    store, base_model = result.run.open_store(), result.inputs["base_model"]
    parts = [store.fetch(address(part)) for part in result.inputs["captions"]]
    records = read_caption_records(part / "train.jsonl" for part in parts)
    shortened = [record.file_name for record in records.values() if record.shortened]
    if shortened:
        max_tokens = load_token_limit(resolve_base_model(base_model), base_model).max_tokens
        print(describe_shortened(shortened, len(records), max_tokens), flush=True)
        if result.run.run_id and not result.run.find_recorded():
            result.run.open_recorder().log_metrics({"data/shortened captions": len(shortened)})
    return result.artifact


@artifact_task(finish=report_captions)
def encode_dataset(
    context: TaskContext, dataset: FlyteDirectory, captions: list[FlyteDirectory], base_model: BaseModelAddress
) -> None:
    """Latents and text embeddings of the training images, which both later stages read."""
    from hand1000.data.captioning import read_captioned_split
    from hand1000.training.encoded_dataset import encode_dataset

    folder = context.download(dataset)
    records = read_captioned_split(folder, "train", context.download_all(captions))
    base = load_base_model(base_model, best_device())
    encode_dataset(base, folder / "train", records, context.on_progress, directory=context.output_dir)


@artifact_task(key_by={"settings": Stage2Settings.fusion_key_fields})
def train_fusion(
    context: TaskContext,
    encoded: FlyteDirectory,
    feature: FlyteDirectory,
    base_model: BaseModelAddress,
    settings: Stage2Settings,
    compute: ComputeSettings,
    seed: int,
) -> None:
    """Train the fusion layer over all images through the frozen UNet."""
    from hand1000.hands.poses import HandPoses
    from hand1000.hands.stage1 import load_features
    from hand1000.training.encoded_dataset import EncodedDataset
    from hand1000.training.precision import weight_dtype
    from hand1000.training.stage2 import train_fusion

    data = EncodedDataset.load(context.download(encoded))
    features = load_features(context.download(feature))
    fusion, history = train_fusion(
        load_base_model(base_model, best_device(), denoiser_dtype=weight_dtype(compute), denoiser_only=True),
        data,
        {gesture_feature.gesture: gesture_feature.mean_tensor() for gesture_feature in features},
        settings,
        context.train_context(seed, compute),
        poses=HandPoses.load(context.download(feature)).select(data.file_names),
    )
    fusion.save_pretrained(context.output_dir)
    write_jsonl(context.output_dir / "history.jsonl", history)


@artifact_task(key_by={"settings": Stage2Settings.embedding_key_fields})
def optimize_embeddings(  # noqa: PLR0913 (Flyte signature)
    context: TaskContext,
    encoded: FlyteDirectory,
    feature: FlyteDirectory,
    fusion: FlyteDirectory,
    base_model: BaseModelAddress,
    shard: int,
    shards: int,
    settings: Stage2Settings,
    compute: ComputeSettings,
    seed: int,
) -> None:
    """Optimize the embedding of each image of one shard: the paper's Stage II.

    In the paper's own loop Stage III optimizes each image's embedding; then these stay where the fusion puts them.
    """
    from hand1000.hands.poses import HandPoses
    from hand1000.models.fusion import FusedEmbeddings, gesture_indices, load_fusion
    from hand1000.storage.tensor_rows import select_rows
    from hand1000.training.encoded_dataset import EncodedDataset
    from hand1000.training.precision import weight_dtype
    from hand1000.training.stage2 import create_embeddings, optimize_all_embeddings

    data = EncodedDataset.load(context.download(encoded))
    layer = load_fusion(context.download(fusion))
    images = shard_slice(len(data.latents), settings.embedding_batch_size, shard, shards)
    poses = HandPoses.load(context.download(feature)).select(data.file_names[images]).tensor()
    captions, gesture_ids = data.conditioning.select(images), gesture_indices(layer, data.gestures[images])
    # Fused by batches, which are the same for any number of shards: a product of other rows is rounded otherwise.
    h = FusedEmbeddings(captions.tokens, layer, settings.lambda_, gesture_ids, poses)
    with create_embeddings(context.output_dir, h.shape, data.file_names[images]) as embeddings:
        _, history = optimize_all_embeddings(
            load_base_model(base_model, best_device(), denoiser_dtype=weight_dtype(compute), denoiser_only=True),
            select_rows(data.latents, images),
            captions.with_tokens(h),
            data.file_names[images],
            settings,
            context.train_context(seed, compute),
            out=embeddings,
        )
    rows = [{**row, "step": images.start + row["step"]} for row in history]
    write_jsonl(context.output_dir / "history.jsonl", rows)
