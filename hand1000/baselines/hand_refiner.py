"""HandRefiner (Lu et al., 2023, arXiv 2311.17957): malformed hands are painted anew, led by a proper one's depth map.

    detect    the hands, by MediaPipe
    depth     of the proper hand that each stands for (`hand1000.hands.correction`, `hand1000.hands.depth`)
    mask      their boxes, grown
    inpaint   inside the mask, through a ControlNet that sees the depth
    paste     the pixels outside the mask back

The depth map's hand has five fingers, because MediaPipe's landmarks do.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
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
from hand1000.models.base_model import BaseModel
from hand1000.models.encoding import encode_texts
from hand1000.models.latents import encode_latents
from hand1000.pipelines.generation import GenerationRequest, ImageGenerator
from hand1000.training.train_controlnet import build_controlnet_pipeline, controlnet_guidance, depth_to_control_image

MAX_HANDS = 2

GROWTH = 0.15
"""By which a box is grown to each side, of that side; at least by `LEAST_GROWTH` of the picture, 30 of 512 pixels."""
LEAST_GROWTH = 30 / 512

ADAPTIVE_STRENGTHS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
TOLERANCE = 1.15
"""The first strength whose landmarks are at most this many times as far off as those of strength 1 is taken."""

SURE = 0.5
"""How sure MediaPipe must be of the surest palm afterwards, if it was so before: to mend must not cost that hand."""


def hand_refiner_generator(
    pictures: ImageGenerator, base: BaseModel, controlnet: ControlNetModel, settings: HandRefinerSettings
) -> ImageGenerator:
    """The system that draws a picture, then mends its hands.

    A picture without hands, and one whose hands are harder to find once they are mended, stays as it is.

    Args:
        pictures: draws what is mended.
        base: inpaints. Where its UNet does not take the mask itself, the latents outside are put back in each step.
        controlnet: of the base model, for depth maps.
        settings: of the detector and the sampler.
    """
    pipeline = build_controlnet_pipeline(StableDiffusionControlNetInpaintPipeline, base, controlnet)

    def system(orders: Sequence[GenerationRequest]) -> Iterator[Image.Image]:
        drawn = [np.asarray(picture) for picture in pictures(orders)]
        with HandDetector(settings.min_detection_confidence, MAX_HANDS) as detector:
            sightings = [detector.look(image) for image in drawn]
            rows = [row for row, sighting in enumerate(sightings) if sighting.hands]
            todo = [_Repair(orders[row], drawn[row], sightings[row]) for row in rows]
            mended = _mended(pipeline, todo, settings, detector) if todo else []
        for row, image in zip(rows, mended, strict=True):
            drawn[row] = image
        yield from (Image.fromarray(image) for image in drawn)

    return system


def hand_mask(hands: Sequence[Hand], size: int) -> np.ndarray:
    """Where a picture is painted anew, (size, size) bool: the hands' boxes, grown."""
    mask = np.zeros((size, size), bool)
    for hand in hands:
        x, y, width, height = hand.box
        across, down = (max(LEAST_GROWTH, GROWTH * side) for side in (width, height))
        left, right = int(np.floor((x - across) * size)), int(np.ceil((x + width + across) * size))
        top, bottom = int(np.floor((y - down) * size)), int(np.ceil((y + height + down) * size))
        mask[max(0, top) : max(0, bottom), max(0, left) : max(0, right)] = True
    return mask


class _Repair:
    """A picture with hands, (S, S, 3) uint8, and what is painted where."""

    def __init__(self, order: GenerationRequest, image: np.ndarray, sighting: Detection) -> None:
        self.order, self.image = order, image
        self.least_score = min(sighting.palm_score, SURE)
        self.hands = [replace(hand, landmarks=correct_hand(hand.landmarks)) for hand in sighting.hands]
        self.depth = render_hand_depth([hand.landmarks for hand in self.hands], len(image))
        self.mask = hand_mask([*sighting.hands, *self.hands], len(image))

    def pasted(self, painted: np.ndarray) -> np.ndarray:
        return np.where(self.mask[..., None], painted, self.image)

    def error(self, sighting: Detection) -> float:
        """How far the hands that were found again are from those of the depth map; infinite where one is lost."""
        if sighting.palm_score < self.least_score:
            return float("inf")
        errors = []
        for hand in self.hands:
            best = max(sighting.hands, key=lambda other: box_iou(hand.box, other.box), default=None)
            if best is None or not box_iou(hand.box, best.box):
                return float("inf")
            errors.append(landmark_error(hand.landmarks, best.landmarks))
        return sum(errors) / len(errors)


def _mended(
    pipeline: StableDiffusionControlNetInpaintPipeline,
    todo: Sequence[_Repair],
    settings: HandRefinerSettings,
    detector: HandDetector,
) -> list[np.ndarray]:
    """The pictures with their hands painted anew; one whose hands are lost by that stays as it is."""
    chosen = [one.image for one in todo]
    limits = [float("inf")] * len(todo)

    def painted(rows: list[int], strength: float) -> Iterator[tuple[int, float, np.ndarray]]:
        which = [todo[row] for row in rows]
        for row, one, image in zip(rows, which, _painted(pipeline, which, settings, strength), strict=True):
            yield row, one.error(detector.look(image)), image

    first = 1.0 if settings.adaptive else settings.control_strength
    for row, error, image in painted(list(range(len(todo))), first):
        if np.isfinite(error):
            chosen[row], limits[row] = image, TOLERANCE * error
    left = list(range(len(todo))) if settings.adaptive else []
    for strength in ADAPTIVE_STRENGTHS:
        if not left:
            break
        for row, error, image in list(painted(left, strength)):
            if np.isfinite(error) and error <= limits[row]:
                chosen[row] = image
                left.remove(row)
    return chosen


@torch.no_grad()
def _painted(
    pipeline: StableDiffusionControlNetInpaintPipeline,
    todo: Sequence[_Repair],
    settings: HandRefinerSettings,
    strength: float,
) -> list[np.ndarray]:
    """The pictures with their hands painted anew at one strength of the depth map, all in one batch."""
    generators = [torch_generator(one.order.seed, "hand-refiner", one.order.prompt) for one in todo]
    options: dict[str, Any] = {}
    if pipeline.unet.config.in_channels == pipeline.vae.config.latent_channels != 4:
        # diffusers puts the latents outside the mask back itself, but only where they have four channels.
        options["callback_on_step_end"] = _Outside(pipeline, todo, generators)
    device = pipeline.unet.device
    prompts = [one.order.prompt for one in todo]
    with controlnet_guidance(pipeline.unet, settings.control_guidance):
        painted = pipeline(
            prompt_embeds=encode_texts(pipeline.text_encoder, pipeline.tokenizer, prompts).to(device),
            negative_prompt_embeds=encode_texts(pipeline.text_encoder, pipeline.tokenizer, [""] * len(todo)).to(device),
            image=[Image.fromarray(one.image) for one in todo],
            mask_image=[Image.fromarray(one.mask) for one in todo],
            control_image=depth_to_control_image(np.stack([one.depth for one in todo])).to(device),
            controlnet_conditioning_scale=float(strength),
            strength=settings.denoising_strength,
            guidance_scale=settings.guidance_scale,
            eta=settings.eta,
            num_inference_steps=settings.num_inference_steps,
            generator=generators,
            output_type="np",
            **options,
        ).images
    return [one.pasted((image * 255).round().astype(np.uint8)) for one, image in zip(todo, painted, strict=True)]


class _Outside:
    """After each of the sampler's steps: the latents outside the masks are those of the picture, noised as much."""

    def __init__(
        self,
        pipeline: StableDiffusionControlNetInpaintPipeline,
        todo: Sequence[_Repair],
        generators: Sequence[torch.Generator],
    ) -> None:
        device = pipeline.unet.device
        self._latents = encode_latents(pipeline.vae, np.stack([one.image for one in todo])).to(device)
        shape = self._latents.shape[1:]
        self._noise = torch.stack([torch.randn(shape, generator=one) for one in generators]).to(device)
        masks = torch.from_numpy(np.stack([one.mask for one in todo]))[:, None].float()
        # A place of the latents is painted if any of its pixels is.
        self._masks = torch.nn.functional.adaptive_max_pool2d(masks, shape[1:]).to(device)

    def __call__(self, pipeline: Any, step: int, timestep: Any, kwargs: dict[str, torch.Tensor]) -> dict:
        timesteps = pipeline.scheduler.timesteps
        first = len(timesteps) - pipeline.num_timesteps
        outside = self._latents
        if first + step + 1 < len(timesteps):
            outside = pipeline.scheduler.add_noise(outside, self._noise, timesteps[first + step + 1][None])
        return {"latents": torch.where(self._masks > 0, kwargs["latents"], outside)}
