"""How an export samples, in the terms of the model that it was made of."""

from typing import Any

from hand1000.models.flat_fusion import FlatFusion
from hand1000.pipelines.pipeline_hand1000 import Hand1000Pipeline


def export_sampler(pipeline: Hand1000Pipeline) -> dict[str, Any]:
    """Return the settings with which a pipeline generates the images of its export: those that the card names."""
    config = pipeline.config
    steps = pipeline.backbone.schedule.stock_sampling_steps(config.num_inference_steps, config.sampler)
    return {"autoguidance_scale": 1.0, "num_inference_steps": steps}


def explain_unmeasured(pipeline: Hand1000Pipeline) -> str:
    """Return why measuring the export would say nothing new, as a sentence; "" if its images differ from the model's.

    The number of steps alone is no reason: it differs only where diffusers cannot sample in as many.
    """
    if pipeline.fusion is None:
        return "The model has no fusion, so it is plain Stable Diffusion already."
    if isinstance(pipeline.fusion, FlatFusion) or not pipeline.config.fuse_null_prompt:
        return "This kind of fusion cannot be folded into plain Stable Diffusion, so the model has no export."
    if pipeline.config.autoguidance_scale == 1:
        return "The model has no autoguidance, so an export generates the same images."
    return ""
