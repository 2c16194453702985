"""The lean blocks against diffusers' own."""

import copy
import threading
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from hand1000.models.lean_blocks import LeanResnetBlock, cached_text, use_lean_blocks
from tests.support.tiny_models import LATENT, TOKENS, WIDTH, tiny_base

FORMATS = (torch.contiguous_format, torch.channels_last)


def lean_copy(module: Any) -> Any:
    """Return a copy of a module with lean blocks."""
    lean = copy.deepcopy(module)
    use_lean_blocks(lean)
    return lean


def inputs(batch: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return latents, timesteps and text of a UNet."""
    torch.manual_seed(1)
    return torch.randn(batch, 4, LATENT, LATENT), torch.arange(batch) * 300, torch.randn(batch, TOKENS, WIDTH)


def gradients(unet: Any) -> list[torch.Tensor]:
    """Return the prediction, and the gradients of the weights and of the text."""
    latents, timesteps, text = inputs()
    text.requires_grad_(True)
    prediction = unet(latents, timesteps, text).sample
    prediction.square().sum().backward()
    return [prediction, text.grad, *(parameter.grad for parameter in unet.parameters() if parameter.requires_grad)]


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("trained", [True, False])
def test_the_gradients_are_equal_to_the_bit(memory_format: torch.memory_format, trained: bool) -> None:
    plain = copy.deepcopy(tiny_base().unet).to(memory_format=memory_format).requires_grad_(trained).train(trained)
    lean = lean_copy(plain)
    for left, right in zip(gradients(plain), gradients(lean), strict=True):
        assert torch.equal(left, right)


@pytest.mark.parametrize("memory_format", FORMATS)
def test_the_predictions_and_images_are_equal_to_the_bit(memory_format: torch.memory_format) -> None:
    unet, vae = (part.to(memory_format=memory_format) for part in copy.deepcopy((tiny_base().unet, tiny_base().vae)))
    # diffusers copies the tensors of 64 images and more before they are enlarged.
    latents, timesteps, text = inputs(64)
    before = latents.clone()
    with torch.no_grad():
        assert torch.equal(unet(latents, timesteps, text).sample, lean_copy(unet)(latents, timesteps, text).sample)
        assert torch.equal(vae.decode(latents).sample, lean_copy(vae).decode(latents).sample)
        pixels = torch.rand(2, 3, 4 * LATENT, 4 * LATENT)
        assert torch.equal(vae.encode(pixels).latent_dist.mean, lean_copy(vae).encode(pixels).latent_dist.mean)
    assert torch.equal(latents, before)


def test_a_linear_projection_has_the_same_bits() -> None:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(**tiny_base().unet.config | {"use_linear_projection": True})
    unet.to(memory_format=torch.channels_last)
    for left, right in zip(gradients(unet), gradients(lean_copy(unet)), strict=True):
        assert torch.equal(left, right)


@pytest.mark.parametrize(
    "options",
    [
        {"output_scale_factor": 2.0},
        {"up": True},
        {"down": True},
        {"time_embedding_norm": "scale_shift"},
        {"non_linearity": "gelu"},
        {"skip_time_act": True},
    ],
)
def test_other_options_leave_a_block_as_it_is(options: dict[str, Any]) -> None:
    block = ResnetBlock2D(in_channels=8, temb_channels=16, groups=4, **options)
    use_lean_blocks(block)
    assert type(block) is ResnetBlock2D


def test_a_processor_of_the_caller_stays() -> None:
    unet = copy.deepcopy(tiny_base().unet)
    unet.set_attn_processor(AttnProcessor())
    lean = lean_copy(unet)
    assert all(type(processor) is AttnProcessor for processor in lean.attn_processors.values())
    assert any(type(part) is LeanResnetBlock for part in lean.modules())


class Calls:
    """Counts the texts that the first cross-attention of a UNet computes keys of."""

    def __init__(self, unet: Any) -> None:
        self.count = 0
        layer: nn.Module = next(part for name, part in unet.named_modules() if name.endswith("attn2.to_k"))
        layer.register_forward_hook(self._note)

    def _note(self, *_: Any) -> None:
        self.count += 1


def test_keys_of_a_text_are_computed_once() -> None:
    unet = lean_copy(tiny_base().unet)
    calls, (latents, timesteps, text) = Calls(unet), inputs()
    with torch.no_grad():
        expected = [unet(latents, timesteps, tokens).sample for tokens in (text, text, -text, text)]
        calls.count = 0
        with cached_text():
            cached = [unet(latents, timesteps, tokens).sample for tokens in (text, text, -text, text)]
        assert calls.count == 3
        unet(latents, timesteps, text)
    assert calls.count == 4
    assert all(torch.equal(left, right) for left, right in zip(expected, cached, strict=True))


def test_a_cached_text_is_not_shared() -> None:
    unet = lean_copy(tiny_base().unet)
    calls, (latents, timesteps, text) = Calls(unet), inputs()
    with cached_text():
        unet(latents, timesteps, text)  # With gradients, of which a weight may need its own.
        unet(latents, timesteps, text)
        assert calls.count == 2
        with torch.no_grad():
            unet(latents, timesteps, text)
            thread = threading.Thread(target=torch.no_grad()(lambda: unet(latents, timesteps, text)))
            thread.start()
            thread.join()
            unet(latents, timesteps, text)
    assert calls.count == 4
