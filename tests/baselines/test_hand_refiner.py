"""HandRefiner: depth maps of hands, the ControlNet that learns from them, and what is painted where."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from PIL import Image

from hand1000.baselines import hand_refiner
from hand1000.baselines.hand_refiner import hand_mask, hand_refiner_generator
from hand1000.config.comparison import HandRefinerSettings
from hand1000.config.controlnet import ControlSettings
from hand1000.config.pretraining import TrainingSchedule
from hand1000.core.errors import Hand1000Error
from hand1000.core.progress import noop_callback
from hand1000.data.synthetic import render_synthetic_images
from hand1000.hands.depth import FAR, NEAR, render_hand_depth
from hand1000.hands.depth_pairs import DepthPairs, build_depth_pairs, landmark_error
from hand1000.hands.detector import Detection, Hand, HandDetector
from hand1000.models.base_model import BaseModel
from hand1000.pipelines.controlnet import controlnet_guidance, load_controlnet
from hand1000.pipelines.generation import GenerationRequest, ImageGenerator
from hand1000.training.context import TrainContext
from hand1000.training.train_controlnet import save_controlnet, train_controlnet
from tests.support.rendered_hands import draw, rendered_hands
from tests.support.tiny_models import CrashingCheckpointStore, SimulatedKill, fresh_base

ROOT = Path(__file__).resolve().parents[2]
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
    num_inference_steps=3,
)
RECIPE = ControlSettings(
    seed=0,
    images=6,
    gesture_images=0,
    max_tilt=180,
    min_detection_confidence=0.5,
    max_error=1.0,
    caption_dropout=0.5,
    hand_weight=4.0,
    length=TrainingSchedule(
        steps=4, batch_size=2, learning_rate=1e-2, warmup_steps=2, ema_decay=0.5, checkpoint_every=2
    ),
)


def found_in(image: np.ndarray) -> list[Hand]:
    """The hands of one picture."""
    with HandDetector(0.5, 2) as detector:
        return detector.detect(image)


def test_a_depth_map_covers_the_hand_and_its_nearest_part_is_in_front() -> None:
    palm = rendered_hands()[0]
    (hand,) = found_in(palm.pixels)
    depth = render_hand_depth([hand.landmarks], 96)
    assert depth.shape == (96, 96) and depth.dtype == np.float32
    assert depth.max() == pytest.approx(NEAR, abs=0.02) and depth[depth > 0.15].min() >= 0.15 > 0
    # Where the picture differs from its wall, the map should not be empty, and the other way round.
    x, y, width, height = (round(96 * value) for value in palm.box)
    inside = depth[y : y + height, x : x + width]
    assert (inside > 0).mean() > 0.25 and (depth > 0).sum() - (inside > 0).sum() < 0.1 * (depth > 0).sum()
    for joint in range(21):
        column, row = (hand.landmarks[joint, :2] * 96).astype(int)
        assert depth[row, column] > FAR - 0.1, joint
    # A finger that comes towards the viewer is nearer than the rest.
    bent = hand.landmarks.copy()
    bent[5:9, 2] -= np.array([0.0, 0.1, 0.2, 0.3], np.float32)
    column, row = (bent[8, :2] * 96).astype(int)
    towards = render_hand_depth([bent], 96)
    assert towards[row, column] > 0.95 and towards[row, column] > depth[row, column]
    # Two hands are two, and none is nothing.
    aside = hand.landmarks + np.array([0.4, 0, 0], np.float32)
    assert (render_hand_depth([hand.landmarks, aside], 96) >= depth).all()
    assert not render_hand_depth([], 96).any() and not render_hand_depth([hand.landmarks + 5], 96).any()


def test_a_larger_map_is_the_same_hand() -> None:
    (hand,) = found_in(rendered_hands()[0].pixels)
    small, large = render_hand_depth([hand.landmarks], 64), render_hand_depth([hand.landmarks], 512)
    averaged = large.reshape(64, 8, 64, 8).mean(axis=(1, 3))
    assert np.abs(small - averaged).mean() < 0.01


def test_pairs_are_of_hands_that_are_found_where_they_are(tmp_path: Path) -> None:
    render_synthetic_images(tmp_path / "set", images=6, gesture_images=0, seed=5, size=64, progress=noop_callback)
    options = {"max_tilt": 180, "min_detection_confidence": 0.5}
    seen: list[tuple[int, int]] = []
    pairs = build_depth_pairs(
        tmp_path / "set", max_error=0.3, on_progress=lambda done, total, _: seen.append((done, total)), **options
    )
    assert 0 < len(pairs.images) <= 6 and seen[-1] == (6, 6)
    with pytest.raises(Hand1000Error, match="max_error"):
        build_depth_pairs(tmp_path / "set", max_error=1e-4, **options)
    both = pairs.with_mirrored()
    count = len(pairs.images)
    assert len(both.captions) == 2 * count and {"left", "right"} & set(both.captions[0].split())
    assert (both.depths[count] == pairs.depths[0, :, ::-1]).all()
    assert both.boxes[count, 0] == pytest.approx(1 - pairs.boxes[0, 0] - pairs.boxes[0, 2], abs=1e-6)
    pairs.save(tmp_path)
    loaded = DepthPairs.load(tmp_path)
    assert loaded.captions == pairs.captions and (loaded.depths == pairs.depths).all()
    (tmp_path / "pairs.safetensors").write_bytes(b"")
    with pytest.raises(Hand1000Error, match="build the pairs again"):
        DepthPairs.load(tmp_path)


def tiny_pairs() -> DepthPairs:
    """Grey pictures with a bright square, and where it is."""
    images, depths = np.full((4, 32, 32, 3), 60, np.uint8), np.zeros((4, 32, 32), np.uint8)
    boxes = []
    for index, (row, column) in enumerate([(0, 0), (0, 16), (16, 0), (16, 16)]):
        images[index, row : row + 16, column : column + 16] = 220
        depths[index, row : row + 16, column : column + 16] = 255
        boxes.append([column / 32, row / 32, 0.5, 0.5])
    return DepthPairs(images, depths, np.array(boxes, np.float32), ("a hand",) * 4)


def test_the_training_continues_to_the_same_bits_and_leaves_the_base_model_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hand1000.training.loop.LOG_EVERY", 2)
    base = fresh_base()
    before = {name: value.clone() for name, value in base.unet.state_dict().items()}

    def run(folder: Path, crash_after: int | None = None) -> tuple[ControlNetModel, list[dict]]:
        context = TrainContext(seed=RECIPE.seed, checkpoint=CrashingCheckpointStore(folder, crash_after=crash_after))
        return train_controlnet(tiny_pairs(), base, RECIPE, context)

    whole, history = run(tmp_path / "whole")
    with pytest.raises(SimulatedKill):
        run(tmp_path / "cut", crash_after=1)
    continued, same = run(tmp_path / "cut")
    assert history == same and [row["step"] for row in history] == [2, 4]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, continued.state_dict()[name]), name
    assert all(torch.equal(value, before[name]) for name, value in base.unet.state_dict().items())
    assert any(whole.state_dict()[name].any() for name in whole.state_dict() if name.startswith("controlnet_mid"))

    (tmp_path / "net").mkdir()
    save_controlnet(tmp_path / "net", whole, base, RECIPE, history, tiny_pairs().first(2))
    loaded = load_controlnet(str(tmp_path / "net"))
    assert loaded.dtype == torch.float32 and not any(one.requires_grad for one in loaded.parameters())
    with Image.open(tmp_path / "net" / "grid.png") as grid:
        assert grid.size == (4 + 2 * 36, 4 + 3 * 36)
    with pytest.raises(Hand1000Error, match="ControlNet"):
        load_controlnet(str(tmp_path))


def test_what_the_map_changes_is_amplified_and_the_unet_left_as_it_was() -> None:
    unet = fresh_base().unet
    torch.manual_seed(0)
    shape = (2, unet.config.in_channels, unet.config.sample_size, unet.config.sample_size)
    latents, text = torch.randn(shape), torch.randn(2, 4, unet.config.cross_attention_dim)
    controlnet = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 4, 4)).eval()
    for zero in (*controlnet.controlnet_down_blocks, controlnet.controlnet_mid_block):
        torch.nn.init.normal_(zero.weight, std=0.1)
    size = shape[-1] * 4
    with torch.no_grad():
        down, middle = controlnet(latents, 10, text, controlnet_cond=torch.rand(2, 3, size, size), return_dict=False)

        def predicted(**residuals: object) -> torch.Tensor:
            return unet(latents, 10, encoder_hidden_states=text, return_dict=False, **residuals)[0]

        residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
        plain, led = predicted(), predicted(**residuals)
        assert (plain - led).abs().max() > 1e-3
        with controlnet_guidance(unet, 3.0):
            assert torch.allclose(predicted(**residuals), plain + 3 * (led - plain), atol=1e-5)
            assert torch.equal(predicted(), plain)
        assert torch.equal(predicted(**residuals), led)


def showing(images: Sequence[np.ndarray]) -> tuple[ImageGenerator, list[GenerationRequest]]:
    """A system that draws `images`, and the orders for them."""
    orders = [GenerationRequest(f"{index}.png", "a hand", index, "palm") for index in range(len(images))]
    by_name = {order.file_name: image for order, image in zip(orders, images, strict=True)}
    return lambda wanted: [Image.fromarray(by_name[order.file_name]) for order in wanted], orders


def with_channels(base: BaseModel, latents: int, unet: int) -> BaseModel:
    """The base model with a random UNet, and VAE, of other numbers of channels."""
    torch.manual_seed(1)
    vae_config = dict(base.vae.config) | {"latent_channels": latents}
    unet_config = dict(base.unet.config) | {"in_channels": unet, "out_channels": latents}
    vae = type(base.vae).from_config(vae_config).eval()
    return BaseModel(
        vae,
        base.text_encoder,
        base.tokenizer,
        UNet2DConditionModel.from_config(unet_config).eval(),
        base.scheduler,
        base.source,
    )


@pytest.mark.parametrize(("latents", "unet"), [(4, 4), (8, 8), (4, 9)], ids=["sd", "small base", "inpainting"])
def test_only_the_hands_are_painted(latents: int, unet: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By random weights, so that what is painted is no hand: that it is found again is made up."""
    monkeypatch.setattr(hand_refiner._Repair, "error", lambda self, found: 0.0)
    palm = np.asarray(Image.fromarray(draw("palm", 1, 96).pixels).resize((32, 32)))
    wall = np.full((32, 32, 3), 90, np.uint8)
    base = with_channels(fresh_base(), latents, unet)
    torch.manual_seed(2)
    halvings = len(base.vae.config.block_out_channels)
    plain = UNet2DConditionModel.from_config(dict(base.unet.config) | {"in_channels": latents})
    controlnet = ControlNetModel.from_unet(plain, conditioning_embedding_out_channels=(4, 4, 4, 4)[:halvings]).eval()
    pictures, orders = showing([palm, wall, palm])
    system = hand_refiner_generator(pictures, base, controlnet, SETTINGS)
    first, second, third = (np.asarray(image) for image in system(orders))
    assert (second == wall).all()
    with HandDetector(0.2, 2) as detector:
        mask = hand_mask(detector.detect(palm), 32)
    assert mask.any() and not mask.all()
    for painted in (first, third):
        assert (painted[~mask] == palm[~mask]).all() and (painted[mask] != palm[mask]).mean() > 0.5
    # Each picture follows from its own prompt and seed.
    assert (first != third).any()
    (again,) = system(orders[2:])
    assert np.abs(np.asarray(again).astype(int) - third).max() <= 1


def test_the_mask_is_the_box_grown_by_a_share_of_it() -> None:
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


def test_the_least_strength_that_keeps_the_landmarks_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is painted is made up here: the weaker the depth map's say, the farther aside the hand."""
    palm = draw("palm", 1, 96).pixels
    asked: list[float] = []

    def painted(self: object, todo: Sequence, strength: float) -> list[np.ndarray]:
        asked.append(strength)
        return [np.roll(one.image, round(40 * max(0.0, 0.65 - strength)), axis=1) for one in todo]

    monkeypatch.setattr(hand_refiner._Inpainter, "inpaint", painted)
    pictures, orders = showing([palm, np.full_like(palm, 90)])
    settings = SETTINGS.model_copy(update={"adaptive": True})
    base = fresh_base()
    controlnet = ControlNetModel.from_unet(base.unet, conditioning_embedding_out_channels=(4, 4, 4)).eval()
    first, second = hand_refiner_generator(pictures, base, controlnet, settings)(orders)
    assert asked == [1.0, 0.4, 0.5, 0.6, 0.7] and (np.asarray(first) == palm).all()
    assert (np.asarray(second) == 90).all()


def test_a_hand_that_is_lost_by_mending_is_left_as_it_was() -> None:
    palm = draw("palm", 1, 96).pixels
    (hand,) = found_in(palm)
    order = GenerationRequest("0.png", "a hand", 0, "palm")

    def accepted(before: float, after: float, found: Sequence[Hand] = (hand,)) -> bool:
        repair = hand_refiner._Repair(order, palm, Detection([hand], before, 1.0))
        return bool(np.isfinite(repair.error(Detection(list(found), after, 1.0))))

    assert accepted(0.9, 0.6) and accepted(0.3, 0.3) and accepted(0.3, 0.9)
    assert not accepted(0.9, 0.4) and not accepted(0.4, 0.3)
    elsewhere = replace(hand, landmarks=hand.landmarks + 3)
    assert not accepted(0.9, 0.9, found=[]) and not accepted(0.9, 0.9, found=[elsewhere])


def test_landmarks_are_compared_in_lengths_of_the_palm() -> None:
    (hand,) = found_in(rendered_hands()[0].pixels)
    moved = hand.landmarks + np.array([0.1, 0, 0], np.float32)
    assert landmark_error(hand.landmarks, hand.landmarks) == 0
    assert landmark_error(2 * hand.landmarks, 2 * moved) == pytest.approx(landmark_error(hand.landmarks, moved))
