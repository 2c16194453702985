"""HandRefiner: the mask, the inpainting, and which repairs it accepts."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from PIL import Image

from hand1000.baselines import hand_refiner
from hand1000.baselines.hand_refiner import hand_mask, hand_refiner_generator
from hand1000.config.comparison import HandRefinerSettings
from hand1000.core.errors import Hand1000Error
from hand1000.hands.detector import Detection, Hand, HandDetector
from hand1000.models.stable_diffusion import StableDiffusion
from hand1000.pipelines.generation import GenerationRequest, ImageGenerator
from tests.support.rendered_hands import detect, render_hand
from tests.support.tiny_models import fresh_base

SETTINGS = HandRefinerSettings(
    controlnet="models/small-controlnet",
    inpainting_model="",
    min_detection_confidence=0.2,
    control_strength=0.55,
    control_guidance=2.0,
    adaptive=False,
    denoising_strength=1.0,
    guidance_scale=1.0,
    eta=1.0,
    num_inference_steps=4,
)


def generator_of(images: Sequence[np.ndarray]) -> tuple[ImageGenerator, list[GenerationRequest]]:
    """A generator that returns `images`, and the requests for them."""
    requests = [GenerationRequest(f"{index}.png", "a hand", index, "palm") for index in range(len(images))]
    by_name = {request.file_name: image for request, image in zip(requests, images, strict=True)}
    return lambda batch: [Image.fromarray(by_name[request.file_name]) for request in batch], requests


def with_channels(base: StableDiffusion, latents: int, unet: int) -> StableDiffusion:
    """The base model with a random UNet, and VAE, of other numbers of channels."""
    torch.manual_seed(1)
    vae_config = dict(base.vae.config) | {"latent_channels": latents}
    unet_config = dict(base.unet.config) | {"in_channels": unet, "out_channels": latents}
    vae = type(base.vae).from_config(vae_config).eval()
    return StableDiffusion(
        vae,
        base.text_encoder,
        base.tokenizer,
        UNet2DConditionModel.from_config(unet_config).eval(),
        base.scheduler,
        base.source,
    )


@pytest.mark.parametrize(("latents", "unet"), [(4, 4), (8, 8), (4, 9)], ids=["sd", "small base", "inpainting"])
def test_only_hands_are_inpainted(latents: int, unet: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights are random, so no hand is generated, and the check for lost hands is patched out."""
    monkeypatch.setattr(hand_refiner._Repair, "error", lambda self, detection: 0.0)
    palm = np.asarray(Image.fromarray(render_hand("palm", 1, 96).pixels).resize((32, 32)))
    wall = np.full((32, 32, 3), 90, np.uint8)
    base = with_channels(fresh_base(), latents, unet)
    torch.manual_seed(2)
    halvings = len(base.vae.config.block_out_channels)
    plain = UNet2DConditionModel.from_config(dict(base.unet.config) | {"in_channels": latents})
    controlnet = ControlNetModel.from_unet(plain, conditioning_embedding_out_channels=(4, 4, 4, 4)[:halvings]).eval()
    source, requests = generator_of([palm, wall, palm])
    repair = hand_refiner_generator(source, base, controlnet, SETTINGS)
    first, second, third = (np.asarray(image) for image in repair(requests))
    assert (second == wall).all()
    with HandDetector(0.2, 2) as detector:
        mask = hand_mask(detector.detect(palm), 32)
    assert mask.any() and not mask.all()
    for repaired in (first, third):
        assert (repaired[~mask] == palm[~mask]).all() and (repaired[mask] != palm[mask]).mean() > 0.5
    # Each image depends on its own prompt and seed.
    assert (first != third).any()
    (again,) = repair(requests[2:])
    assert np.abs(np.asarray(again).astype(int) - third).max() <= 1


def test_mask_is_the_enlarged_box() -> None:
    landmarks = np.zeros((21, 3), np.float32)
    landmarks[:, 0] = np.linspace(0.25, 0.75, 21)
    landmarks[:, 1] = np.linspace(0.5, 0.52, 21)
    mask = hand_mask([Hand(landmarks, 0.9, True)], 512)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    assert abs(columns[0] - (128 - 0.15 * 256)) <= 1 and abs(columns[-1] - (384 + 0.15 * 256)) <= 1
    assert abs(rows[0] - (256 - 30)) <= 1 and abs(rows[-1] - (0.52 * 512 + 30)) <= 1
    landmarks[:, 0] -= 0.7
    assert hand_mask([Hand(landmarks, 0.9, True)], 512)[:, 0].any()
    assert not hand_mask([Hand(landmarks - 2, 0.9, True)], 512).any()


def test_lowest_strength_that_keeps_the_landmarks_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The inpainting is faked: the lower the strength, the farther the hand moves aside."""
    palm = render_hand("palm", 1, 96).pixels
    strengths: list[float] = []

    def inpaint(self: object, repairs: Sequence, strength: float) -> list[np.ndarray]:
        strengths.append(strength)
        return [np.roll(repair.image, round(40 * max(0.0, 0.65 - strength)), axis=1) for repair in repairs]

    monkeypatch.setattr(hand_refiner._Inpainter, "inpaint", inpaint)
    source, requests = generator_of([palm, np.full_like(palm, 90)])
    settings = SETTINGS.model_copy(update={"adaptive": True})
    base = fresh_base()
    controlnet = ControlNetModel.from_unet(base.unet, conditioning_embedding_out_channels=(4, 4, 4)).eval()
    first, second = hand_refiner_generator(source, base, controlnet, settings)(requests)
    assert strengths == [1.0, 0.4, 0.5, 0.6, 0.7] and (np.asarray(first) == palm).all()
    assert (np.asarray(second) == 90).all()


def test_repair_that_loses_a_hand_is_rejected() -> None:
    palm = render_hand("palm", 1, 96).pixels
    (hand,) = detect(palm)
    request = GenerationRequest("0.png", "a hand", 0, "palm")

    def accepted(before: float, after: float, hands: Sequence[Hand] = (hand,)) -> bool:
        repair = hand_refiner._Repair(request, palm, Detection([hand], before, 1.0))
        return bool(np.isfinite(repair.error(Detection(list(hands), after, 1.0))))

    assert accepted(0.9, 0.6) and accepted(0.3, 0.3) and accepted(0.3, 0.9)
    assert not accepted(0.9, 0.4) and not accepted(0.4, 0.3)
    elsewhere = replace(hand, landmarks=hand.landmarks + 3)
    assert not accepted(0.9, 0.9, hands=[]) and not accepted(0.9, 0.9, hands=[elsewhere])


def test_steps_that_leave_the_schedule_are_refused() -> None:
    base, settings = fresh_base(), SETTINGS.model_copy(update={"num_inference_steps": 45})
    with pytest.raises(Hand1000Error, match=r"hand_refiner.num_inference_steps: .* in 45 steps; choose 50"):
        hand_refiner_generator(lambda requests: [], base, None, settings)
