"""Guidance by a ControlNet."""

import torch
from diffusers import ControlNetModel

from hand1000.pipelines.controlnet import controlnet_guidance
from tests.support.tiny_models import fresh_base


def test_guidance_amplifies_the_controlnets_effect() -> None:
    unet = fresh_base().unet
    torch.manual_seed(0)
    shape = (2, unet.config.in_channels, unet.config.sample_size, unet.config.sample_size)
    latents, text = torch.randn(shape), torch.randn(2, 4, unet.config.cross_attention_dim)
    controlnet = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 4, 4)).eval()
    for layer in (*controlnet.controlnet_down_blocks, controlnet.controlnet_mid_block):
        torch.nn.init.normal_(layer.weight, std=0.1)
    size = shape[-1] * 4
    with torch.no_grad():
        down, middle = controlnet(latents, 10, text, controlnet_cond=torch.rand(2, 3, size, size), return_dict=False)

        def predict(**residuals: object) -> torch.Tensor:
            return unet(latents, 10, encoder_hidden_states=text, return_dict=False, **residuals)[0]

        residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
        plain, controlled = predict(), predict(**residuals)
        assert (plain - controlled).abs().max() > 1e-3
        with controlnet_guidance(unet, 3.0):
            assert torch.allclose(predict(**residuals), plain + 3 * (controlled - plain), atol=1e-5)
            assert torch.equal(predict(), plain)
        assert torch.equal(predict(**residuals), controlled)
