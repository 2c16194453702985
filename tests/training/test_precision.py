"""Compilation of the denoiser."""

import logging

import pytest
import torch

from hand1000.training.context import FULL_PRECISION
from hand1000.training.precision import configure_denoiser
from tests.support.tiny_models import LATENT, TOKENS, WIDTH, fresh_base


def test_without_a_compiler_nothing_is_compiled(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    monkeypatch.setattr(torch._inductor.config, "force_disable_caches", True)
    unet = fresh_base().unet
    inputs = torch.randn(1, 4, LATENT, LATENT), torch.tensor([5]), torch.randn(1, TOKENS, WIDTH)
    expected = unet(*inputs).sample
    configure_denoiser(unet, FULL_PRECISION.model_copy(update={"compile": True}), frozen=True)
    with caplog.at_level(logging.WARNING, logger="hand1000"):
        assert torch.allclose(unet(*inputs).sample, expected, atol=1e-6)
        unet(*inputs)
    (message,) = [record.getMessage() for record in caplog.records if record.name.startswith("hand1000")]
    assert message.startswith("compute.compile: nothing is compiled") and "no-such-compiler" in message
    assert "\n" not in message
