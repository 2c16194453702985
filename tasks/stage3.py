"""Stage III: fine-tune the UNet on the frozen embeddings; the result is the model."""

from flytekit.types.directory import FlyteDirectory

from hand1000.settings import Settings
from tasks.common import Artifact, Work, gpu_task, produce


@gpu_task()
def train_unet(
    prepared: FlyteDirectory,
    fusion: FlyteDirectory,
    embeddings: list[FlyteDirectory],
    base_model: str,
    settings: Settings,
    run: str,
    root: str,
) -> Artifact:
    """Fine-tune, and put the pipeline together: a diffusers folder for `Hand1000Pipeline.from_pretrained`."""
    from hand1000.devices import best_device
    from hand1000.diffusion.base_model import load_base_model
    from hand1000.diffusion.fusion import double_fusion, load_fusion
    from hand1000.diffusion.interleaved import train_interleaved
    from hand1000.diffusion.pipeline import build_pipeline
    from hand1000.diffusion.prepared import Prepared
    from hand1000.diffusion.stage2 import load_embeddings
    from hand1000.diffusion.stage3 import train_unet as train
    from hand1000.storage.files import write_jsonl
    from hand1000.storage.models import model_identity

    defaults = settings.generation.defaults()

    def build(work: Work) -> None:
        data = Prepared.load(work.read(prepared))
        layer = load_fusion(work.read(fusion))
        base = load_base_model(base_model, best_device())
        refined = load_embeddings([work.read(part) for part in embeddings], data.file_names)
        common = {"seed": settings.seed, "checkpoint": work.checkpoint, "report": work.report}
        if settings.stage2.interleaved:
            unet, history = train_interleaved(base, data.latents, refined, settings.stage2, settings.stage3, **common)
        else:
            empty = double_fusion(data.empty_embedding[None], layer, settings.stage2.lambda_)[0].detach()
            unet, history = train(base, data.latents, refined, empty, settings.stage3, **common)
        build_pipeline(base, unet=unet, fusion=layer, **defaults).save_pretrained(work.out)
        write_jsonl(work.out / "history.jsonl", history)

    return produce(
        "train_unet",
        root=root,
        run=run,
        build=build,
        inputs={
            "prepared": prepared,
            "fusion": fusion,
            "embeddings": embeddings,
            "base_model": model_identity(base_model),
            "seed": settings.seed,
            "stage2": settings.stage2.model_dump(
                include={"lambda_", "interleaved", "refine_steps", "refine_learning_rate"}
            ),
            "settings": settings.stage3.model_dump(exclude={"checkpoint_every"}),
            "defaults": defaults,
        },
    )
