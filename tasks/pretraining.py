"""The small base model from nothing: render, train autoencoder, text encoder and UNet."""

from flytekit.types.directory import FlyteDirectory

from hand1000.config.pretraining import PretrainSettings
from tasks.context import Artifact, TaskContext, cluster_task, run_cached


@cluster_task(ignored_inputs=("root",))
def render_pretraining_images(images: int, gesture_images: int, seed: int, root: str) -> Artifact:
    """Hands in arbitrary poses, in HaGRID's layout; a few of each gesture among them."""
    from hand1000.data.render.dataset import RENDERER_VERSION
    from hand1000.data.synthetic import render_synthetic_images
    from hand1000.models.small_base import IMAGE_SIZE

    inputs = {"images": images, "gesture_images": gesture_images, "seed": seed}

    def build(work: TaskContext) -> None:
        render_synthetic_images(work.out, size=IMAGE_SIZE, progress=work.report, **inputs)

    return run_cached(
        "render_pretraining", root=root, run="", build=build, inputs=inputs | {"renderer": RENDERER_VERSION}
    )


@cluster_task(ignored_inputs=("root",))
def train_autoencoder(pictures: FlyteDirectory, settings: PretrainSettings, root: str) -> Artifact:
    """`vae/` and its history."""
    from hand1000.data.synthetic import load_synthetic_images
    from hand1000.storage.files import write_jsonl
    from hand1000.training.context import TrainContext
    from hand1000.training.pretrain_base import train_autoencoder as train

    def build(work: TaskContext) -> None:
        images, _ = load_synthetic_images(work.read(pictures), 180)
        autoencoder, history = train(
            images, settings, TrainContext(seed=settings.seed, checkpoint=work.checkpoint, on_progress=work.report)
        )
        autoencoder.save_pretrained(work.out / "vae")
        write_jsonl(work.out / "history.jsonl", history)

    return run_cached(
        "train_autoencoder",
        root=root,
        run="",
        build=build,
        inputs={"pictures": pictures, "seed": settings.seed, "length": settings.autoencoder.cache_key_fields()},
    )


@cluster_task(ignored_inputs=("root",))
def train_text_encoder(
    pictures: FlyteDirectory, autoencoder: FlyteDirectory, settings: PretrainSettings, root: str
) -> Artifact:
    """`text_encoder/`, `tokenizer/` and the history."""
    from hand1000.data.synthetic import load_synthetic_images
    from hand1000.storage.files import write_jsonl
    from hand1000.training.context import TrainContext
    from hand1000.training.pretrain_base import train_text_encoder as train

    def build(work: TaskContext) -> None:
        from diffusers import AutoencoderKL

        images, captions = load_synthetic_images(work.read(pictures), settings.max_tilt)
        vae = AutoencoderKL.from_pretrained(work.read(autoencoder) / "vae").eval()
        encoder, tokenizer, history = train(
            images,
            captions,
            vae,
            settings,
            TrainContext(seed=settings.seed, checkpoint=work.checkpoint, on_progress=work.report),
        )
        encoder.save_pretrained(work.out / "text_encoder")
        tokenizer.save_pretrained(work.out / "tokenizer")
        write_jsonl(work.out / "history.jsonl", history)

    return run_cached(
        "train_text_encoder",
        root=root,
        run="",
        build=build,
        inputs={
            "pictures": pictures,
            "autoencoder": autoencoder,
            "seed": settings.seed,
            "max_tilt": settings.max_tilt,
            "length": settings.text_encoder.cache_key_fields(),
        },
    )


@cluster_task(ignored_inputs=("root",))
def train_base(
    pictures: FlyteDirectory,
    autoencoder: FlyteDirectory,
    text_encoder: FlyteDirectory,
    settings: PretrainSettings,
    root: str,
) -> Artifact:
    """The base model as a diffusers folder in half precision, with recipe, loss curves and a picture grid."""
    from hand1000.data.synthetic import load_synthetic_images
    from hand1000.storage.files import read_jsonl
    from hand1000.training.context import TrainContext
    from hand1000.training.pretrain_base import save_base
    from hand1000.training.pretrain_base import train_base as train

    def build(work: TaskContext) -> None:
        from diffusers import AutoencoderKL
        from transformers import CLIPTextModel, CLIPTokenizer

        images, captions = load_synthetic_images(work.read(pictures), settings.max_tilt)
        parts = {"autoencoder": work.read(autoencoder), "text_encoder": work.read(text_encoder)}
        vae = AutoencoderKL.from_pretrained(parts["autoencoder"] / "vae").eval()
        encoder = CLIPTextModel.from_pretrained(parts["text_encoder"] / "text_encoder").eval()
        tokenizer = CLIPTokenizer.from_pretrained(parts["text_encoder"] / "tokenizer")
        unet, history = train(
            images,
            captions,
            vae,
            encoder,
            tokenizer,
            settings,
            TrainContext(seed=settings.seed, checkpoint=work.checkpoint, on_progress=work.report),
        )
        curves = {name: [row for _, row in read_jsonl(part / "history.jsonl")] for name, part in parts.items()}
        save_base(work.out, vae, encoder, tokenizer, unet, settings, curves | {"base": history}, captions[:8])

    return run_cached(
        "train_base",
        root=root,
        run="",
        build=build,
        inputs={
            "pictures": pictures,
            "autoencoder": autoencoder,
            "text_encoder": text_encoder,
            "seed": settings.seed,
            "max_tilt": settings.max_tilt,
            "caption_dropout": settings.caption_dropout,
            "length": settings.base.cache_key_fields(),
        },
    )
