"""HandRefiner (Lu et al., 2023, arXiv 2311.17957): inpainting of malformed hands, guided by a normal hand's depth map.

    detect    the hands, with MediaPipe
    depth     render the depth map of each corrected hand (`hand1000.hands.correction`, `hand1000.hands.depth`)
    mask      the hands' boxes, enlarged
    inpaint   inside the mask, with a ControlNet on the depth map
    paste     the pixels outside the mask back

The hand of the depth map has five fingers, because MediaPipe's landmarks do.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from diffusers import ControlNetModel, StableDiffusionControlNetInpaintPipeline
from PIL import Image

from hand1000.config.comparison import HandRefinerSettings
from hand1000.core.rng import torch_generator
from hand1000.hands.correction import correct_hand
from hand1000.hands.depth import render_hand_depth
from hand1000.hands.depth_pairs import landmark_error
from hand1000.hands.detector import Detection, Hand, HandDetector, box_iou
from hand1000.models.backbone import Backbone
from hand1000.models.encoding import encode_latents, encode_texts
from hand1000.pipelines.controlnet import (
    build_controlnet_pipeline,
    check_stock_steps,
    controlnet_guidance,
    depth_to_control_image,
)
from hand1000.pipelines.generation import GenerationRequest, ImageGenerator

MAX_HANDS = 2

BOX_MARGIN, MIN_BOX_MARGIN = 0.15, 30 / 512
"""Enlargement of a box to each side relative to that side, and the least enlargement relative to the image."""

ADAPTIVE_STRENGTHS, MAX_ERROR_RATIO = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9), 1.15
"""Adaptive mode takes the first strength whose landmark error is at most this many times that of strength 1."""

MIN_PALM_SCORE = 0.5
"""Palm score below which a repair is rejected if the score was higher before."""


def hand_refiner_generator(
    source: ImageGenerator, base: Backbone, controlnet: ControlNetModel, settings: HandRefinerSettings
) -> ImageGenerator:
    """Return the generator that repairs the hands of another generator's images.

    An image stays as it is if it has no hands, or if its hands are harder to detect after the repair. `base` is the
    inpainting model, with a ControlNet for depth maps. If its UNet takes no mask, each step restores the latents
    outside it.

    Raises:
        Hand1000Error: diffusers' sampler, which the pipeline uses, leaves the schedule in this number of steps; or the
            base model is not one of Stable Diffusion 1.x.
    """
    base.require("HandRefiner", base.source)
    check_stock_steps(base.schedule, settings.num_inference_steps, "hand_refiner.num_inference_steps")
    pipeline = build_controlnet_pipeline(StableDiffusionControlNetInpaintPipeline, base, controlnet)

    def repair_images(requests: Sequence[GenerationRequest]) -> Iterator[Image.Image]:
        images = [np.asarray(image) for image in source(requests)]
        with HandDetector(settings.min_detection_confidence, MAX_HANDS) as detector:
            detections = [detector.detect_with_scores(image) for image in images]
            rows = [row for row, detection in enumerate(detections) if detection.hands]
            repairs = [_Repair(requests[row], images[row], detections[row]) for row in rows]
            repaired = _Inpainter(pipeline, detector, settings).repair(repairs) if repairs else []
        for row, image in zip(rows, repaired, strict=True):
            images[row] = image
        yield from (Image.fromarray(image) for image in images)

    return repair_images


def hand_mask(hands: Sequence[Hand], size: int) -> np.ndarray:
    """Return the mask of the pixels to be inpainted, (size, size) bool: the hands' boxes, enlarged."""
    mask = np.zeros((size, size), bool)
    for hand in hands:
        x, y, width, height = hand.box
        margin_x, margin_y = (max(MIN_BOX_MARGIN, BOX_MARGIN * side) for side in (width, height))
        left, right = int(np.floor((x - margin_x) * size)), int(np.ceil((x + width + margin_x) * size))
        top, bottom = int(np.floor((y - margin_y) * size)), int(np.ceil((y + height + margin_y) * size))
        mask[max(0, top) : max(0, bottom), max(0, left) : max(0, right)] = True
    return mask


class _Repair:
    """An image with hands, (S, S, 3) uint8, and the corrected hands, depth map and mask of its repair."""

    def __init__(self, request: GenerationRequest, image: np.ndarray, detection: Detection) -> None:
        self.request, self.image = request, image
        self.min_palm_score = min(detection.palm_score, MIN_PALM_SCORE)
        self.hands = [replace(hand, landmarks=correct_hand(hand.landmarks)) for hand in detection.hands]
        self.depth = render_hand_depth([hand.landmarks for hand in self.hands], len(image))
        self.mask = hand_mask([*detection.hands, *self.hands], len(image))

    def paste(self, inpainted: np.ndarray) -> np.ndarray:
        return np.where(self.mask[..., None], inpainted, self.image)

    def error(self, detection: Detection) -> float:
        """Landmark error of the repaired hands against the corrected ones; infinite if one is lost."""
        if detection.palm_score < self.min_palm_score:
            return float("inf")
        errors = []
        for hand in self.hands:
            best = max(detection.hands, key=lambda other: box_iou(hand.box, other.box), default=None)
            if best is None or not box_iou(hand.box, best.box):
                return float("inf")
            errors.append(landmark_error(hand.landmarks, best.landmarks))
        return sum(errors) / len(errors)


@dataclass(frozen=True)
class _Inpainter:
    """The inpainting pipeline, the detector that checks its results, and the settings of both."""

    pipeline: StableDiffusionControlNetInpaintPipeline
    detector: HandDetector
    settings: HandRefinerSettings

    def repair(self, repairs: Sequence[_Repair]) -> list[np.ndarray]:
        """Repair each image with the strength that the settings choose, and keep those whose hands are lost by it."""
        images = [repair.image for repair in repairs]
        max_errors = [float("inf")] * len(repairs)
        strength = 1.0 if self.settings.adaptive else self.settings.control_strength
        for row, error, image in self._inpaint_and_measure(repairs, range(len(repairs)), strength):
            if np.isfinite(error):
                images[row], max_errors[row] = image, MAX_ERROR_RATIO * error
        remaining = list(range(len(repairs))) if self.settings.adaptive else []
        for strength in ADAPTIVE_STRENGTHS:
            if not remaining:
                break
            for row, error, image in self._inpaint_and_measure(repairs, remaining, strength):
                if np.isfinite(error) and error <= max_errors[row]:
                    images[row] = image
                    remaining.remove(row)
        return images

    def _inpaint_and_measure(
        self, repairs: Sequence[_Repair], rows: Sequence[int], strength: float
    ) -> list[tuple[int, float, np.ndarray]]:
        """Row, landmark error and inpainted image of some repairs."""
        batch = [repairs[row] for row in rows]
        return [
            (row, repair.error(self.detector.detect_with_scores(image)), image)
            for row, repair, image in zip(rows, batch, self.inpaint(batch, strength), strict=True)
        ]

    @torch.no_grad()
    def inpaint(self, repairs: Sequence[_Repair], strength: float) -> list[np.ndarray]:
        """Inpaint the hands of all images in one batch, at one strength of the depth map."""
        pipeline, settings = self.pipeline, self.settings
        prompts = [repair.request.prompt for repair in repairs]
        generators = [torch_generator(repair.request.seed, "hand-refiner", repair.request.prompt) for repair in repairs]
        options: dict[str, Any] = {}
        if pipeline.unet.config.in_channels == pipeline.vae.config.latent_channels != 4:
            # diffusers restores the latents outside the mask by itself, but only if they have four channels.
            options["callback_on_step_end"] = _RestoreOutside(pipeline, repairs, generators)
        device = pipeline.unet.device
        encode = partial(encode_texts, pipeline.text_encoder, pipeline.tokenizer)
        with controlnet_guidance(pipeline.unet, settings.control_guidance):
            images = pipeline(
                prompt_embeds=encode(prompts).to(device),
                negative_prompt_embeds=encode([""] * len(prompts)).to(device),
                image=[Image.fromarray(repair.image) for repair in repairs],
                mask_image=[Image.fromarray(repair.mask) for repair in repairs],
                control_image=depth_to_control_image(np.stack([repair.depth for repair in repairs])).to(device),
                controlnet_conditioning_scale=float(strength),
                strength=settings.denoising_strength,
                guidance_scale=settings.guidance_scale,
                eta=settings.eta,
                num_inference_steps=settings.num_inference_steps,
                generator=generators,
                output_type="np",
                **options,
            ).images
        return [
            repair.paste((image * 255).round().astype(np.uint8)) for repair, image in zip(repairs, images, strict=True)
        ]


class _RestoreOutside:
    """Step callback that replaces the latents outside the masks by the original image's at the same noise level."""

    def __init__(
        self,
        pipeline: StableDiffusionControlNetInpaintPipeline,
        repairs: Sequence[_Repair],
        generators: Sequence[torch.Generator],
    ) -> None:
        device = pipeline.unet.device
        self._latents = encode_latents(pipeline.vae, np.stack([repair.image for repair in repairs])).to(device)
        shape = self._latents.shape[1:]
        self._noise = torch.stack([torch.randn(shape, generator=generator) for generator in generators]).to(device)
        masks = torch.from_numpy(np.stack([repair.mask for repair in repairs]))[:, None].float()
        # A latent is inside if any of its pixels is.
        self._masks = torch.nn.functional.adaptive_max_pool2d(masks, shape[1:]).to(device)

    def __call__(self, pipeline: Any, step: int, timestep: Any, kwargs: dict[str, torch.Tensor]) -> dict:
        timesteps = pipeline.scheduler.timesteps
        first = len(timesteps) - pipeline.num_timesteps
        outside = self._latents
        if first + step + 1 < len(timesteps):
            outside = pipeline.scheduler.add_noise(outside, self._noise, timesteps[first + step + 1][None])
        return {"latents": torch.where(self._masks > 0, kwargs["latents"], outside)}
