"""The noise schedule that a scheduler config of any class describes."""

import dataclasses

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

from hand1000.core.errors import Hand1000Error
from hand1000.models.noise_schedule import make_noise_scheduler
from hand1000.models.small_base import build_scheduler
from tests.support.tiny_models import TEXTS, tiny_base
from tests.support.tiny_pipelines import generators, pipeline_of

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@pytest.mark.parametrize("name", ["DDIM", "EulerDiscrete", "EulerAncestralDiscrete", "UniPCMultistep", "PNDM"])
def test_configs_of_all_classes_give_one_scheduler(name: str) -> None:
    config = getattr(diffusers, f"{name}Scheduler")(**BETAS).config
    expected = DDIMScheduler(**BETAS, clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    scheduler = make_noise_scheduler(config)
    assert {key: value for key, value in scheduler.config.items() if key[0] != "_"} == {
        key: value for key, value in expected.config.items() if key[0] != "_"
    }
    assert torch.equal(scheduler.alphas_cumprod, expected.alphas_cumprod)


def test_the_shipped_config_is_kept_as_it_is() -> None:
    shipped = build_scheduler()
    assert make_noise_scheduler(shipped.config).to_json_string() == shipped.to_json_string()


def test_trained_betas_and_the_first_release_are_read() -> None:
    betas = [0.001, 0.002, 0.003]
    trained = make_noise_scheduler({"trained_betas": betas, "num_train_timesteps": 3})
    assert trained.betas.tolist() == torch.tensor(betas).tolist()
    # Stable Diffusion 1.4's own config names neither the spacing nor the prediction type.
    first = make_noise_scheduler(BETAS | {"num_train_timesteps": 1000, "trained_betas": None})
    assert (first.config.prediction_type, first.config.timestep_spacing) == ("epsilon", "leading")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"beta_schedule": None}, "base: the scheduler config has no beta_start, beta_end, beta_schedule"),
        ({"prediction_type": "sample"}, "base: prediction_type 'sample' is not one of epsilon, v_prediction"),
        ({"beta_schedule": "sigmoid"}, "base: not a noise schedule of DDIM: sigmoid is not implemented"),
        ({"num_train_timesteps": "many"}, "base: not a noise schedule of DDIM"),
        ({"rescale_betas_zero_snr": True}, "base: rescale_betas_zero_snr needs prediction_type v_prediction"),
    ],
)
def test_another_schedule_is_refused_in_one_line(change: dict, fault: str) -> None:
    with pytest.raises(Hand1000Error, match=fault) as error:
        make_noise_scheduler(BETAS | change, "base")
    assert "\n" not in str(error.value)


def test_a_stock_pipeline_of_its_parts_changes_no_image() -> None:
    """diffusers changes the config of a scheduler in place that has another offset or clips."""
    base = tiny_base()
    clipping = DDIMScheduler.from_config(base.scheduler.config, clip_sample=True, steps_offset=0)
    pipeline = pipeline_of("four")
    backbone = dataclasses.replace(base, scheduler=clipping)
    mine = type(pipeline)(backbone, pipeline.fusion, num_inference_steps=3)
    mine.set_progress_bar_config(disable=True)
    before = mine(TEXTS, generator=generators(1, 2), output_type="latent").images
    components = (base.vae, base.text_encoder, base.tokenizer, base.unet)
    for scheduler in (clipping, mine.scheduler):
        StableDiffusionPipeline(*components, scheduler, None, None, requires_safety_checker=False)
    assert torch.equal(mine(TEXTS, generator=generators(1, 2), output_type="latent").images, before)
    assert float(before.abs().max()) > 1
