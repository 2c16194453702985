"""Teach Stable Diffusion one hand gesture from 1,000 images (Hand1000, AAAI 2025)."""

__version__ = "0.1.0"


def __getattr__(name: str):
    # diffusers looks up a pipeline's own classes by the name of the top package; importing them here, and only when
    # asked for, keeps `import hand1000` quick.
    if name == "Hand1000Pipeline":
        from hand1000.pipelines.pipeline_hand1000 import Hand1000Pipeline

        return Hand1000Pipeline
    if name == "GestureFusion":
        from hand1000.models.fusion import GestureFusion

        return GestureFusion
    raise AttributeError(f"module 'hand1000' has no attribute {name!r}")
