"""`Hand1000Pipeline`: a prompt in, pictures of the gesture out."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiffusionPipeline, UNet2DConditionModel
from diffusers.utils import BaseOutput
from PIL import Image
from transformers import CLIPTextModel, CLIPTokenizer

from hand1000.devices import best_device
from hand1000.diffusion.base_model import BaseModel
from hand1000.diffusion.fusion import GestureFusion, double_fusion
from hand1000.diffusion.text import encode_texts
from hand1000.errors import Hand1000Error

LIMITS = {"guidance_scale": (1.0, 50.0), "num_inference_steps": (1, 1000), "mu": (0.0, 1.0)}


@dataclass
class Hand1000PipelineOutput(BaseOutput):
    """`images`: PIL images, or uint8 (B, H, W, 3) with output_type="np"."""

    images: list[Image.Image] | np.ndarray


class Hand1000Pipeline(DiffusionPipeline):
    """Stable Diffusion conditioned on mu*e + (1-mu)*g (paper, section 3.5).

    Without a fusion it is plain Stable Diffusion, by the same sampler: the other side of every comparison.

    Args:
        vae, text_encoder, tokenizer, unet, scheduler: as in Stable Diffusion.
        fusion: the gesture feature and the trained fusion, or None.
        mu, guidance_scale, num_inference_steps: what a call uses when it does not say.
    """

    _optional_components = ["fusion"]
    model_cpu_offload_seq = "text_encoder->fusion->unet->vae"

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        unet: UNet2DConditionModel,
        scheduler: DDIMScheduler,
        fusion: GestureFusion | None = None,
        mu: float = 0.7,
        guidance_scale: float = 3.0,
        num_inference_steps: int = 45,
    ) -> None:
        super().__init__()
        self.register_modules(
            vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler, fusion=fusion
        )
        self.register_to_config(mu=mu, guidance_scale=guidance_scale, num_inference_steps=num_inference_steps)

    @property
    def resolution(self) -> int:
        """Side of a picture in pixels."""
        return self.unet.config.sample_size * 2 ** (len(self.vae.config.block_out_channels) - 1)

    @torch.no_grad()
    def encode_prompt(self, prompt: list[str], mu: float) -> torch.Tensor:
        """The condition of each prompt, (B, L, D)."""
        embeddings = encode_texts(self.text_encoder, self.tokenizer, prompt)
        return embeddings if self.fusion is None else double_fusion(embeddings, self.fusion, mu)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        *,
        mu: float | None = None,
        guidance_scale: float | None = None,
        num_inference_steps: int | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "pil",
    ) -> Hand1000PipelineOutput:
        """Draw one picture a prompt, all in one batch.

        Args:
            prompt: one or several; it should hold the gesture's phrase.
            mu: weight of the text embedding against the fused one, 0..1.
            guidance_scale: 1 (no guidance) to 50.
            num_inference_steps: of the sampler, 1..1000.
            generator: a seed; give one an image, and a picture does not depend on its neighbours' noise.
            output_type: "pil" or "np".

        Raises:
            Hand1000Error: a setting out of range.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        mu = self._setting("mu", mu)
        guidance_scale = self._setting("guidance_scale", guidance_scale)
        steps = int(self._setting("num_inference_steps", num_inference_steps))
        device = self.unet.device
        condition = self.encode_prompt(prompts, mu)
        guided = guidance_scale > 1
        if guided:
            condition = torch.cat([self.encode_prompt([""], mu).expand_as(condition), condition])

        latents = self._start_noise(len(prompts), generator).to(device, condition.dtype)
        self.scheduler.set_timesteps(steps, device=device)
        latents = latents * self.scheduler.init_noise_sigma
        for timestep in self.progress_bar(self.scheduler.timesteps):
            doubled = torch.cat([latents, latents]) if guided else latents
            prediction = self.unet(self.scheduler.scale_model_input(doubled, timestep), timestep, condition).sample
            if guided:
                unconditional, conditional = prediction.chunk(2)
                prediction = unconditional + guidance_scale * (conditional - unconditional)
            latents = self.scheduler.step(prediction, timestep, latents).prev_sample

        decoded = self.vae.decode(latents / self.vae.config.scaling_factor).sample
        # Rounded, not truncated: a cast alone would darken every picture by half a level.
        pixels = ((decoded.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        images = pixels if output_type == "np" else [Image.fromarray(picture) for picture in pixels]
        return Hand1000PipelineOutput(images=images)

    def _setting(self, name: str, value: float | None) -> float:
        value = self.config[name] if value is None else value
        low, high = LIMITS[name]
        if not low <= value <= high:
            raise Hand1000Error(f"{name}: {value} is out of range; choose {low} to {high}")
        return value

    def _start_noise(self, count: int, generator: torch.Generator | list[torch.Generator] | None) -> torch.Tensor:
        size = self.unet.config.sample_size
        shape = (self.unet.config.in_channels, size, size)
        generators = generator if isinstance(generator, list) else [generator] * count
        if len(generators) != count:
            raise Hand1000Error(f"generator: {len(generators)} given for {count} prompts; give one an image")
        return torch.stack(
            [torch.randn(shape, generator=g, device=g.device if g is not None else None).cpu() for g in generators]
        )


def build_pipeline(
    base: BaseModel,
    *,
    unet: UNet2DConditionModel | None = None,
    fusion: GestureFusion | None = None,
    mu: float,
    guidance_scale: float,
    num_inference_steps: int,
) -> Hand1000Pipeline:
    """The pipeline over a base model: as it is, or with a tuned UNet and a fusion."""
    unet = unet or base.unet
    for part in (base.vae, unet, fusion):
        if part is not None:
            # diffusers writes where a part was loaded from beside its weights: a path of this machine, which would
            # also give equal models different digests.
            part.register_to_config(_name_or_path="")
    pipeline = Hand1000Pipeline(
        base.vae,
        base.text_encoder,
        base.tokenizer,
        unet,
        base.scheduler,
        fusion,
        mu=mu,
        guidance_scale=guidance_scale,
        num_inference_steps=num_inference_steps,
    )
    return pipeline.to(base.unet.device)


def load_pipeline(folder: Path) -> Hand1000Pipeline:
    """The pipeline of a model's folder, on the accelerator if there is one, silent while it draws.

    Raises:
        Hand1000Error: the folder holds something else, or a file of it is missing or broken.
    """
    try:
        pipeline = Hand1000Pipeline.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except Exception as error:
        # diffusers raises OSError, ValueError, TypeError and safetensors' own, by what is wrong with which file.
        raise Hand1000Error(f"{folder}: no model of Hand1000: {' '.join(str(error).split())}") from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(best_device())
