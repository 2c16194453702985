"""ControlNets (Zhang et al., 2023, arXiv 2302.05543): loading, inference pipelines and guidance."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from diffusers import ControlNetModel, UNet2DConditionModel

from hand1000.core.errors import Hand1000Error
from hand1000.models.backbone import Backbone
from hand1000.models.schedule import NoiseSchedule
from hand1000.storage.hub import fetch_model_folder
from hand1000.storage.pretrained import load_model


def load_controlnet(source: str, device: "torch.device | str" = "cpu") -> ControlNetModel:
    """Load a ControlNet, frozen and in float32.

    Args:
        source: Folder, `s3://` address of a folder, or pinned hub id.
        device: Device of the weights.

    Raises:
        Hand1000Error: `source` does not exist or is not a ControlNet.
    """
    folder = fetch_model_folder(source)
    controlnet = load_model(ControlNetModel, folder, "a ControlNet", torch_dtype=torch.float32)
    return controlnet.to(device).requires_grad_(False)


def depth_to_control_image(depths: np.ndarray) -> torch.Tensor:
    """Convert depth maps (B, S, S) in 0..1 to the input of a ControlNet, (B, 3, S, S) float32."""
    return torch.from_numpy(depths.astype(np.float32))[:, None].expand(-1, 3, -1, -1).contiguous()


def build_controlnet_pipeline(pipeline_class: Any, base: Backbone, controlnet: ControlNetModel) -> Any:
    """Build one of diffusers' ControlNet pipelines over a base model, without a progress bar."""
    parts = base.parts | {"scheduler": base.schedule.stock_scheduler(), "controlnet": controlnet}
    pipeline = pipeline_class(**parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def check_stock_steps(schedule: NoiseSchedule, num_inference_steps: int, setting: str) -> None:
    """Check that diffusers' scheduler, with which its pipelines sample, follows its schedule.

    Raises:
        Hand1000Error: It does not; names the `setting` and the nearest number of steps in which it does.
    """
    nearest = schedule.stock_sampling_steps(num_inference_steps)
    if nearest != num_inference_steps:
        raise Hand1000Error(
            f"{setting}: diffusers' DDIM sampler leaves this model's noise schedule in {num_inference_steps} steps; "
            f"choose {nearest}"
        )


@contextmanager
def controlnet_guidance(unet: UNet2DConditionModel, scale: float) -> Iterator[None]:
    """Scale the change that a ControlNet makes to the predictions of `unet` by `scale` inside the context.

    This is classifier-free guidance (Ho & Salimans, 2022) on the depth map instead of the text. A scale of 1 changes
    nothing and costs nothing; any other costs a second prediction.
    """

    def amplify(unet: Any, args: tuple, kwargs: dict[str, Any], output: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        uncontrolled = {name: value for name, value in kwargs.items() if "additional_residual" not in name}
        plain = unet.forward(*args, **uncontrolled)[0]
        return (plain + scale * (output[0] - plain),)

    hook = unet.register_forward_hook(amplify, with_kwargs=True) if scale != 1 else None
    try:
        yield
    finally:
        if hook is not None:
            hook.remove()
