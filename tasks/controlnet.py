"""The small ControlNet: depth maps of rendered hands, and its training."""

from flytekit.types.directory import FlyteDirectory

from hand1000.config.controlnet import ControlSettings
from tasks.context import Artifact, TaskContext, cluster_task, run_cached

GRID = 8
"""Depth maps in the picture that shows what was learned."""


@cluster_task(ignored_inputs=("root",))
def build_depth_pairs(pictures: FlyteDirectory, settings: ControlSettings, root: str) -> Artifact:
    """The rendered pictures whose hands MediaPipe finds, and the depth maps of those."""
    from hand1000.hands.depth_pairs import build_depth_pairs

    options = {name: getattr(settings, name) for name in ("max_tilt", "max_error", "min_detection_confidence")}

    def build(work: TaskContext) -> None:
        build_depth_pairs(work.read(pictures), on_progress=work.report, **options).save(work.out)

    return run_cached("build_depth_pairs", root=root, run="", build=build, inputs={"pictures": pictures} | options)


@cluster_task(ignored_inputs=("root",))
def train_controlnet(pairs: FlyteDirectory, base_model: str, settings: ControlSettings, root: str) -> Artifact:
    """The ControlNet as a diffusers folder in half precision, with its recipe and a picture grid."""
    from hand1000.hands.depth_pairs import DepthPairs
    from hand1000.storage.hub import model_identity

    def build(work: TaskContext) -> None:
        from hand1000.core.devices import best_device
        from hand1000.models.base_model import load_base_model
        from hand1000.training.context import TrainContext
        from hand1000.training.train_controlnet import save_controlnet
        from hand1000.training.train_controlnet import train_controlnet as train

        shown = DepthPairs.load(work.read(pairs))
        base = load_base_model(base_model, best_device())
        controlnet, history = train(
            shown.with_mirrored(),
            base,
            settings,
            TrainContext(seed=settings.seed, checkpoint=work.checkpoint, on_progress=work.report),
        )
        save_controlnet(work.out, controlnet, base, settings, history, shown.first(GRID))

    return run_cached(
        "train_controlnet",
        root=root,
        run="",
        build=build,
        inputs={
            "pairs": pairs,
            "base_model": model_identity(base_model),
            "seed": settings.seed,
            "caption_dropout": settings.caption_dropout,
            "hand_weight": settings.hand_weight,
            "length": settings.length.cache_key_fields(),
        },
    )
