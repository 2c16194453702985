"""Training steps of diffusers' published scripts, written plainly, which `benchmarks.gpu` runs beside ours.

The sources are `examples/text_to_image/train_text_to_image.py` and `train_text_to_image_lora.py` with their defaults:
mixed precision bf16, no gradient checkpointing, PyTorch's default AdamW, memory format and attention, and the gradient
clipped to norm 1. The scripts encode the images and the captions again in every step.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.functional import mse_loss


@dataclass
class Encoders:
    """What the scripts do at the beginning of every step: encode a batch of images and captions.

    Attributes:
        vae: Frozen autoencoder in bf16.
        text_encoder: Frozen text encoder in bf16.
        pixels: Images in -1..1, (B, 3, H, W), already on the device, which favors the script.
        token_ids: Tokens of the captions, (B, L).
    """

    vae: Any
    text_encoder: Any
    pixels: torch.Tensor
    token_ids: torch.Tensor

    def encode(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scaled latents (B, C, h, w) and text embeddings (B, L, D); as in the scripts, the tokens are kept."""
        with torch.no_grad():  # The scripts' encoders are frozen, which records no graph either.
            latents = self.vae.encode(self.pixels.to(self.vae.dtype)).latent_dist.sample()
            return latents * self.vae.config.scaling_factor, self.text_encoder(self.token_ids, return_dict=False)[0]


@dataclass
class PeerTrainer:
    """A training step of the scripts, for all weights or for an adapter.

    Attributes:
        denoiser: The network, of which parameters that require a gradient are trained; fp32 for all weights, bf16
            beside an adapter, which is bf16 too.
        noise_scheduler: Noise schedule.
        learning_rate: Learning rate of AdamW.
        encoders: Encoders of a step; without them latents and text embeddings are those of the batch.
        use_ema: Average the weights by diffusers' `EMAModel`, as `--use_ema` does.
        extra_inputs: Further inputs of the denoiser, such as SDXL's `added_cond_kwargs`.
        precision: dtype of autocast.
    """

    denoiser: Any
    noise_scheduler: Any
    learning_rate: float
    encoders: Encoders | None = None
    use_ema: bool = False
    extra_inputs: Callable[[int], dict] = field(default=lambda count: {})
    precision: torch.dtype = torch.bfloat16

    def __post_init__(self) -> None:
        """Build the optimizer and, if it is asked for, the average."""
        from diffusers.training_utils import EMAModel

        self.parameters = [parameter for parameter in self.denoiser.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=self.learning_rate, betas=(0.9, 0.999), weight_decay=1e-2, eps=1e-8
        )
        self.ema = EMAModel(self.denoiser.parameters()) if self.use_ema else None
        if self.ema is not None:
            self.ema.to(self.denoiser.device)

    def train_step(self, batch: Any, *, draws_noise: bool = True) -> float:
        """Make one step and return its loss.

        Args:
            batch: Latents, text embeddings, noise and timesteps on the device, a `NoisyBatch`.
            draws_noise: Draw noise and timesteps as the scripts do; without it those of the batch are used.
        """
        latents, text = batch.latents, batch.conditioning.tokens
        if self.encoders is not None:
            latents, text = self.encoders.encode()
        noise, timesteps = batch.noise, batch.timesteps
        if draws_noise:
            noise = torch.randn_like(latents)
            count = self.noise_scheduler.config.num_train_timesteps
            timesteps = torch.randint(0, count, (len(latents),), device=latents.device).long()
        noisy_latents = self.noise_scheduler.add_noise(latents, noise, timesteps)
        with torch.autocast(latents.device.type, self.precision):  # What accelerate's `prepare` wraps the UNet in.
            model_pred = self.denoiser(
                noisy_latents, timesteps, text, **self.extra_inputs(len(latents)), return_dict=False
            )[0]
        loss = mse_loss(model_pred.float(), noise.float(), reduction="mean")
        value = loss.item()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.ema is not None:
            self.ema.step(self.denoiser.parameters())
        return value


def add_script_adapter(denoiser: Any, rank: int) -> None:
    """Add the script's adapter to a frozen denoiser; in bf16 it stays in bf16, only fp16 is cast to fp32 there."""
    from peft import LoraConfig

    denoiser.requires_grad_(False)
    targets = ["to_k", "to_q", "to_v", "to_out.0"]
    denoiser.add_adapter(
        LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=targets),
        adapter_name="default",
    )


@dataclass
class EmbeddingTrainer:
    """The embedding loop of diffusers' community pipeline `imagic_stable_diffusion.py`, in bf16 for a whole batch.

    The published loop runs one image at a time in fp32.

    Attributes:
        denoiser: The frozen network.
        noise_scheduler: Noise schedule.
        parameters: What is trained.
        conditioning: Returns the conditioning of a batch from what is trained, (B, L, D).
        learning_rate: Learning rate of Adam.
        precision: dtype of autocast, or float32 for none.
    """

    denoiser: Any
    noise_scheduler: Any
    parameters: list[torch.Tensor]
    conditioning: Callable[[], torch.Tensor]
    learning_rate: float
    extra_inputs: Callable[[int], dict] = field(default=lambda count: {})
    precision: torch.dtype = torch.bfloat16

    def __post_init__(self) -> None:
        """Build the optimizer."""
        self.optimizer = torch.optim.Adam(self.parameters, lr=self.learning_rate)

    def train_step(self, latents: torch.Tensor, noise: torch.Tensor | None = None, timesteps: Any = None) -> float:
        """Make one step and return its loss; noise and timesteps are drawn as in the pipeline, or given."""
        if noise is None:
            noise = torch.randn(latents.shape).to(latents.device)
            timesteps = torch.randint(1000, (len(latents),), device=latents.device)
        noisy_latents = self.noise_scheduler.add_noise(latents, noise, timesteps)
        enabled = self.precision != torch.float32
        with torch.autocast(latents.device.type, self.precision if enabled else torch.bfloat16, enabled=enabled):
            extra = self.extra_inputs(len(latents))
            noise_pred = self.denoiser(noisy_latents, timesteps, self.conditioning(), **extra).sample
        loss = mse_loss(noise_pred.float(), noise.float(), reduction="none").mean([1, 2, 3]).mean()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach().item()
