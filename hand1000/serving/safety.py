"""The optional check of drawn images, by the classifier that Stable Diffusion 1.x ships with."""

import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hand1000.core.devices import best_device
from hand1000.storage.pretrained import load_model, load_part

if TYPE_CHECKING:
    from PIL import Image


class SafetyChecker:
    """A `StableDiffusionSafetyChecker` and the processor of its images.

    Args:
        folder: The checker, `config.json` and safetensors; `preprocessor_config.json` is in it, or in the folder
            `feature_extractor` beside it as in a Stable Diffusion folder.

    Raises:
        Hand1000Error: The folder holds no such checker.
    """

    def __init__(self, folder: Path) -> None:
        from diffusers.pipelines.stable_diffusion import safety_checker
        from transformers import CLIPImageProcessorPil

        beside = folder.parent / "feature_extractor"
        kind = "a StableDiffusionSafetyChecker"
        self._processor = load_part(CLIPImageProcessorPil, beside if beside.is_dir() else folder, kind)
        checker = load_model(safety_checker.StableDiffusionSafetyChecker, folder, kind)
        # It announces a black image, which nobody gets.
        safety_checker.logger.setLevel(logging.ERROR)
        self._checker = checker.to(best_device())
        self._lock = threading.Lock()

    def find_refused(self, images: Sequence["Image.Image"]) -> list[bool]:
        """Return for each image whether the checker refuses it; images are checked one by one."""
        return [self._is_refused(image) for image in images]

    def _is_refused(self, image: "Image.Image") -> bool:
        pixels = self._processor(image.convert("RGB"), return_tensors="pt").pixel_values
        # The checker blackens refused images in place, of which we send none.
        with self._lock:
            _, (is_refused,) = self._checker(clip_input=pixels.to(self._checker.device), images=[np.zeros((1, 1, 3))])
        return bool(is_refused)
