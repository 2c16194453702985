"""`Hand1000Pipeline`: reference, seeds, gestures, autoguidance, limits and saved folders."""

import copy
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel

from hand1000.core.errors import Hand1000Error
from hand1000.gestures import PHRASES
from hand1000.pipelines.pipeline_hand1000 import Hand1000Pipeline, build_pipeline, load_pipeline
from tests.support.tiny_models import LATENT, TEXTS, tiny_base
from tests.support.tiny_pipelines import SAMPLER, fusion_of, generate_array, generators, pipeline_of

PROMPTS = [f"a red hand, {PHRASES[gesture]}" for gesture in ("ok", "four")]


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_pipeline_without_fusion_equals_stable_diffusion(eta: float) -> None:
    """The stock pipeline of diffusers, with the same noise, is the reference."""
    from diffusers import StableDiffusionPipeline

    base = tiny_base()
    generator = torch.Generator().manual_seed(5)
    noise = torch.randn(1, 4, LATENT, LATENT, generator=generator)
    components = (base.vae, base.text_encoder, base.tokenizer, base.unet, base.scheduler)
    stock = StableDiffusionPipeline(*components, None, None, requires_safety_checker=False)
    stock.set_progress_bar_config(disable=True)
    expected = stock(
        TEXTS[0],
        negative_prompt="",
        latents=noise,
        generator=generator,
        guidance_scale=3.0,
        eta=eta,
        num_inference_steps=4,
        output_type="np",
    ).images[0]
    ours = build_pipeline(base, **SAMPLER | {"eta": eta, "num_inference_steps": 4})
    ours.set_progress_bar_config(disable=True)
    image = ours(TEXTS[0], generator=generators(5), output_type="np").images[0]
    assert np.abs(image - expected * 255).max() <= 0.51


def test_image_depends_on_its_own_prompt_and_seed() -> None:
    pipeline = pipeline_of("four")
    alone = pipeline(TEXTS[1], generator=generators(2), output_type="np").images[0].astype(int)
    beside = pipeline(TEXTS, generator=generators(1, 2), output_type="np").images[1].astype(int)
    assert np.abs(alone - beside).max() <= 1
    other = pipeline(TEXTS[1], generator=generators(3), output_type="np").images[0].astype(int)
    assert np.abs(alone - other).max() > 1


def test_concurrent_calls_do_not_change_each_other() -> None:
    """MLflow serves each request in a thread, and a diffusers scheduler keeps the timesteps of the last call."""
    pipeline = pipeline_of("four")
    calls = [(TEXTS[number % 2], number, steps) for number, steps in enumerate((2, 40, 5, 31, 8, 23, 13, 17))]

    def image_of(call: tuple[str, int, int]) -> np.ndarray:
        prompt, seed, steps = call
        return pipeline(prompt, generator=generators(seed), num_inference_steps=steps, output_type="np").images

    alone = [image_of(call) for call in calls]
    with ThreadPoolExecutor(len(calls)) as threads:
        together = list(threads.map(image_of, calls))
    for first, second in zip(alone, together, strict=True):
        assert np.array_equal(first, second)


def test_callback_sees_each_step_and_may_replace_or_end_it() -> None:
    pipeline = pipeline_of("four")
    steps: list[tuple[int, int]] = []

    def record(pipe: object, step: int, timestep: int, tensors: dict) -> dict:
        assert pipe is pipeline and tensors["latents"].shape == (1, 4, 8, 8)
        steps.append((step, timestep))
        return {}

    def draw(**options: object) -> np.ndarray:
        return pipeline(TEXTS[0], generator=generators(1), output_type="np", **options).images

    assert (draw(callback_on_step_end=record) == draw()).all()
    assert [step for step, _ in steps] == [0, 1, 2] and steps[0][1] > steps[1][1] > steps[2][1] >= 0
    zeros = draw(callback_on_step_end=lambda *arguments: {"latents": 0 * arguments[3]["latents"]})
    assert not (zeros == draw()).all()

    def stop(*_: object) -> dict:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        draw(callback_on_step_end=stop)


def test_one_generator_or_none_serves_all_prompts() -> None:
    pipeline = pipeline_of("four")
    first, second = (pipeline(TEXTS, generator=generators(1)[0], output_type="np").images for _ in range(2))
    assert np.array_equal(first, second) and not np.array_equal(first[0], first[1])
    assert pipeline(TEXTS, output_type="np").images.shape == first.shape


def test_prompt_gives_the_image_of_a_model_of_its_gesture_alone() -> None:
    """Classifier-free guidance is on, so that the null prompt matters too."""
    mixture = pipeline_of("four", "ok", strong=True)
    images = generate_array(mixture, PROMPTS, [1, 2])
    for index, gesture in enumerate(("ok", "four")):
        alone = generate_array(pipeline_of(gesture, strong=True), [PROMPTS[index]], [index + 1])
        assert np.abs(images[index] - alone[0]).max() <= 1
    other = generate_array(mixture, PROMPTS, [1, 2], gesture=["four", "ok"])
    assert (np.abs(images - other).max(axis=(1, 2, 3)) > 1).all()
    assert np.array_equal(generate_array(mixture, PROMPTS, [1, 2], gesture=["ok", "four"]), images)
    all_four = generate_array(mixture, PROMPTS, [1, 2], gesture="four")
    assert np.array_equal(all_four[0], other[0]) or np.abs(all_four[0] - other[0]).max() <= 1


def test_ambiguous_or_unknown_gesture_is_rejected() -> None:
    pipeline = pipeline_of("four", "ok")
    for prompts, gesture, fault in (
        (["a red hand"], None, "the phrase of none of this model's gestures, four, ok"),
        ([PROMPTS[0] + PROMPTS[1]], None, "the phrase of four and of ok"),
        (PROMPTS, "like", "gesture 'like': this model knows four, ok only"),
        (PROMPTS, ["four"], "gesture: 1 given for 2 prompts"),
    ):
        with pytest.raises(Hand1000Error, match=fault):
            pipeline(prompts, gesture=gesture)
    with pytest.raises(Hand1000Error, match="gesture 'ok': this model knows four only"):
        pipeline_of("four")(PROMPTS[:1], gesture="ok")
    # The base model ignores the gesture.
    base = build_pipeline(tiny_base(), **SAMPLER)
    base.set_progress_bar_config(disable=True)
    assert len(base(["a red hand"], gesture="ok").images) == 1


def test_autoguidance_leads_away_from_the_guidance_unet(tmp_path: Path) -> None:
    base, fusion = tiny_base(), fusion_of("four")

    def generate(pipeline: Hand1000Pipeline, scale: float) -> np.ndarray:
        pipeline.set_progress_bar_config(disable=True)
        return pipeline(TEXTS, generator=generators(1, 2), autoguidance_scale=scale, output_type="np").images.astype(
            int
        )

    def pipeline_with(unet: UNet2DConditionModel, scale: float) -> Hand1000Pipeline:
        return build_pipeline(base, tuned=unet, fusion=fusion, **SAMPLER | {"autoguidance_scale": scale})

    torch.manual_seed(7)
    tuned = UNet2DConditionModel.from_config(base.unet.config)
    assert pipeline_with(tuned, 1.0).guidance_unet is None
    guided = pipeline_with(tuned, 2.0)
    plain = generate(guided, 1.0)
    assert np.array_equal(plain, generate(pipeline_with(tuned, 1.0), 1.0))
    assert np.abs(generate(guided, 2.0) - plain).max() > 1
    # The last of three steps is at a third of the noise schedule: none, two or all of the steps are guided.
    within = [
        guided(TEXTS, generator=generators(1, 2), autoguidance_interval=ends, output_type="np").images.astype(int)
        for ends in ((0.0, 0.3), (0.4, 1.0), (0.0, 1.0))
    ]
    assert np.array_equal(within[0], plain) and np.array_equal(within[2], generate(guided, 2.0))
    assert all(np.abs(within[1] - other).max() > 1 for other in (plain, within[2]))
    # Guidance by the same weights changes nothing.
    itself = pipeline_with(copy.deepcopy(base.unet), 2.0)
    assert np.abs(generate(itself, 2.0) - generate(itself, 1.0)).max() <= 1
    guided.save_pretrained(tmp_path)
    loaded = Hand1000Pipeline.from_pretrained(tmp_path, use_safetensors=True)
    assert loaded.config.autoguidance_scale == 2.0
    assert np.abs(generate(loaded, 2.0) - generate(guided, 2.0)).max() <= 1


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("mu", 1.5),
        ("guidance_scale", 0.0),
        ("num_inference_steps", 0),
        ("guidance_scale", 99),
        ("eta", -0.1),
        ("autoguidance_scale", 2),
        ("autoguidance_interval", (0.5, 0.5)),
        ("autoguidance_interval", (0.5, 1.5)),
    ],
)
def test_setting_out_of_range_is_named(setting: str, value: object) -> None:
    with pytest.raises(Hand1000Error, match=setting):
        pipeline_of("four")(TEXTS[0], **{setting: value})


def test_saved_pipeline_loads_with_equal_weights_and_images(tmp_path: Path) -> None:
    pipeline = pipeline_of("four")
    images = pipeline(TEXTS, generator=generators(1, 2), output_type="np").images
    pipeline.save_pretrained(tmp_path)
    for name in ("vae", "unet", "fusion"):
        assert '"_name_or_path": ""' in (tmp_path / name / "config.json").read_text()
    loaded = Hand1000Pipeline.from_pretrained(tmp_path, use_safetensors=True)
    loaded.set_progress_bar_config(disable=True)
    again = loaded(TEXTS, generator=generators(1, 2), output_type="np").images
    for component in ("vae", "unet", "text_encoder", "fusion"):
        weights = getattr(loaded, component).state_dict()
        expected = getattr(pipeline, component).state_dict()
        assert all(torch.equal(value, weights[name]) for name, value in expected.items())
    gesture_ids = torch.zeros(2, dtype=torch.long)
    noise = torch.randn(2, 4, LATENT, LATENT)
    embeddings = [model.encode_prompt(TEXTS, 0.7, gesture_ids) for model in (pipeline, loaded)]
    assert torch.equal(*(conditioning.tokens for conditioning in embeddings))
    with torch.no_grad():
        assert torch.allclose(
            *(model.unet(noise, 500, embeddings[0].tokens).sample for model in (pipeline, loaded)), atol=1e-5
        )
    # The rounding of kernels depends on the alignment of the weights: a pixel may differ by one level.
    assert np.abs(images.astype(int) - again).max() <= 1
    assert loaded.config.mu == SAMPLER["mu"] and loaded.fusion.gestures == ("four",)
    assert images.shape == (2, 4 * LATENT, 4 * LATENT, 3) and images.dtype == np.uint8


def test_the_shipped_base_model_in_half_precision_generates() -> None:
    """diffusers 0.42.1 loads components in the precision of their files, which a CPU cannot mix with float32 noise."""
    pipeline = load_pipeline(Path(__file__).parents[2] / "models" / "small-base")
    assert pipeline.unet.dtype == torch.float32
    assert pipeline("a red hand", num_inference_steps=1, output_type="np").images.shape == (1, 64, 64, 3)
