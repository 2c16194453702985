"""`Hand1000Pipeline`: a prompt in, pictures of the gesture out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiffusionPipeline, UNet2DConditionModel
from diffusers.utils import BaseOutput
from PIL import Image
from transformers import CLIPTextModel, CLIPTokenizer

from hand1000.core.devices import best_device
from hand1000.core.errors import Hand1000Error
from hand1000.gestures import find_gesture_in_prompt
from hand1000.models.base_model import BaseModel
from hand1000.models.encoding import encode_texts
from hand1000.models.fusion import Fusion, GestureFusion, double_fusion, gesture_indices

LIMITS = {
    "mu": (0.0, 1.0),
    "guidance_scale": (1.0, 50.0),
    "autoguidance_scale": (1.0, 10.0),
    "eta": (0.0, 1.0),
    "num_inference_steps": (1, 1000),
}

_FORMER_KEYS = {"fuse_empty_prompt": "fuse_null_prompt"}


@dataclass
class Hand1000PipelineOutput(BaseOutput):
    """`images`: PIL images, uint8 (B, H, W, 3) with output_type="np", or scaled latents (B, C, h, w) with "latent"."""

    images: list[Image.Image] | np.ndarray | torch.Tensor


class Hand1000Pipeline(DiffusionPipeline):
    """Stable Diffusion conditioned on mu*e + (1-mu)*g (paper, section 3.5).

    Without a fusion it is plain Stable Diffusion, by the same sampler: the other side of every comparison.

    Args:
        vae, text_encoder, tokenizer, unet, scheduler: as in Stable Diffusion.
        fusion: the gestures' features and the trained fusion, or None.
        guide: the UNet as it was before Stage III, or None; autoguidance leads away from what it predicts.
        fuse_null_prompt: whether the empty prompt, which guidance leads away from, passes through the fusion too.
        mu, guidance_scale, autoguidance_scale, autoguidance_interval, eta, num_inference_steps: what a call uses that
            does not say.
    """

    _optional_components = ["fusion", "guide"]
    model_cpu_offload_seq = "text_encoder->fusion->unet->guide->vae"

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        unet: UNet2DConditionModel,
        scheduler: DDIMScheduler,
        fusion: Fusion | None = None,
        guide: UNet2DConditionModel | None = None,
        mu: float = 0.7,
        guidance_scale: float = 3.0,
        autoguidance_scale: float = 1.0,
        autoguidance_interval: Sequence[float] = (0.0, 1.0),
        fuse_null_prompt: bool = True,
        eta: float = 0.0,
        num_inference_steps: int = 45,
    ) -> None:
        super().__init__()
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=unet,
            scheduler=scheduler,
            fusion=fusion,
            guide=guide,
        )
        self.register_to_config(
            mu=mu,
            guidance_scale=guidance_scale,
            autoguidance_scale=autoguidance_scale,
            autoguidance_interval=list(autoguidance_interval),
            fuse_null_prompt=fuse_null_prompt,
            eta=eta,
            num_inference_steps=num_inference_steps,
        )

    @property
    def resolution(self) -> int:
        """Side of a picture in pixels."""
        return self.unet.config.sample_size * 2 ** (len(self.vae.config.block_out_channels) - 1)

    @torch.no_grad()
    def encode_prompt(self, prompt: list[str], mu: float, gestures: torch.Tensor) -> torch.Tensor:
        """The condition of each prompt, (B, L, D), fused with the gesture that `gestures`, (B,), says."""
        embeddings = encode_texts(self.text_encoder, self.tokenizer, prompt)
        return embeddings if self.fusion is None or mu == 1 else double_fusion(embeddings, self.fusion, mu, gestures)

    @classmethod
    def extract_init_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> tuple[dict[str, Any], ...]:
        """Read a saved model_index.json (diffusers' hook), also one with the names of version 0.1.0."""
        config = {_FORMER_KEYS.get(name, name): value for name, value in config_dict.items()}
        if config.get("fusion", [None])[0] == "hand1000.diffusion.fusion":
            config["fusion"] = [GestureFusion.__module__, config["fusion"][1]]
        return super().extract_init_dict(config, **kwargs)

    def encode_empty_prompt(self, mu: float) -> torch.Tensor:
        """What guidance leads away from, for each of the K gestures, (K, L, D); K is 1 without a fusion."""
        every = torch.arange(len(self.fusion.gestures) if self.fusion is not None else 1)
        return self.encode_prompt([""] * len(every), mu if self.config.fuse_null_prompt else 1.0, every)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        *,
        gesture: str | Sequence[str] | None = None,
        prompt_embeds: torch.Tensor | None = None,
        mu: float | None = None,
        guidance_scale: float | None = None,
        autoguidance_scale: float | None = None,
        autoguidance_interval: Sequence[float] | None = None,
        eta: float | None = None,
        num_inference_steps: int | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "pil",
    ) -> Hand1000PipelineOutput:
        """Draw one picture a prompt, all in one batch.

        Args:
            prompt: one or several; it should hold the gesture's phrase.
            gesture: HaGRID's name of what all are to show, or one a prompt; by default what the model was trained with,
                of several gestures the one whose phrase a prompt holds. Without a fusion it has no say.
            prompt_embeds: conditions that stand in for those of the prompts, (B, L, D).
            mu: weight of the text embedding against the fused one, 0..1.
            guidance_scale: 1 (no guidance) to 50.
            autoguidance_scale: 1 (none) to 10: what the tuned UNet predicts beyond its guide is taken this many
                times (Karras et al., 2024: a model guided by a bad version of itself).
            autoguidance_interval: the part of the noise schedule in which it guides, as shares of it from the clean
                end, the upper one left out (Kynkäänniemi et al., 2024); elsewhere it costs nothing.
            eta: fresh noise in each step of the sampler (DDIM's equation 16): 0 none, 1 as much as DDPM.
            num_inference_steps: of the sampler, 1..1000.
            generator: a seed; give one an image, and a picture does not depend on its neighbours' noise.
            output_type: "pil", "np" or "latent".

        Raises:
            Hand1000Error: a setting out of range, autoguidance of a model that holds no guide, a gesture that the model
                was not trained with, or a prompt that does not tell which of several it means.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        mu = self._setting("mu", mu)
        guidance_scale = self._setting("guidance_scale", guidance_scale)
        autoguidance_scale = self._setting("autoguidance_scale", autoguidance_scale)
        if autoguidance_scale > 1 and self.guide is None:
            raise Hand1000Error("autoguidance_scale: this model holds no guide; choose 1, or train with more than 1")
        low, high = self._interval(autoguidance_interval)
        eta = self._setting("eta", eta)
        steps = int(self._setting("num_inference_steps", num_inference_steps))
        device = self.unet.device
        shown = self._gestures(prompts, gesture)
        condition = self.encode_prompt(prompts, mu, shown) if prompt_embeds is None else prompt_embeds.to(device)
        own_condition = condition
        guided = guidance_scale > 1
        if guided:
            condition = torch.cat([self.encode_empty_prompt(mu)[shown], condition])

        generators = self._generators(len(prompts), generator)
        latents = self._start_noise(generators).to(device, condition.dtype)
        # Drawn from the same generators, an image its own, so that a picture stays its seed's.
        noise_from = None if generator is None else generators
        self.scheduler.set_timesteps(steps, device=device)
        latents = latents * self.scheduler.init_noise_sigma
        for timestep in self.progress_bar(self.scheduler.timesteps):
            doubled = torch.cat([latents, latents]) if guided else latents
            prediction = self.unet(self.scheduler.scale_model_input(doubled, timestep), timestep, condition).sample
            unconditional, prediction = prediction.chunk(2) if guided else (None, prediction)
            if autoguidance_scale > 1 and low <= timestep / self.scheduler.config.num_train_timesteps < high:
                weak = self.guide(self.scheduler.scale_model_input(latents, timestep), timestep, own_condition).sample
                prediction = weak + autoguidance_scale * (prediction - weak)
            if guided:
                prediction = unconditional + guidance_scale * (prediction - unconditional)
            latents = self.scheduler.step(prediction, timestep, latents, eta=eta, generator=noise_from).prev_sample

        if output_type == "latent":
            return Hand1000PipelineOutput(images=latents)
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

    def _interval(self, value: Sequence[float] | None) -> tuple[float, float]:
        low, high = self.config.autoguidance_interval if value is None else value
        if not 0 <= low < high <= 1:
            raise Hand1000Error(
                f"autoguidance_interval: {low} to {high} is none; choose two ends within 0 to 1, the lower first"
            )
        return low, high

    def _gestures(self, prompts: list[str], gesture: str | Sequence[str] | None) -> torch.Tensor:
        """Which of the fusion's gestures each prompt is for, (B,)."""
        if self.fusion is None:
            return torch.zeros(len(prompts), dtype=torch.long)
        if gesture is None:
            gesture = [find_gesture_in_prompt(prompt, self.fusion.gestures) for prompt in prompts]
        gestures = [gesture] * len(prompts) if isinstance(gesture, str) else gesture
        if len(gestures) != len(prompts):
            raise Hand1000Error(f"gesture: {len(gestures)} given for {len(prompts)} prompts; give one, or one a prompt")
        return gesture_indices(self.fusion, gestures)

    @staticmethod
    def _generators(count: int, generator: torch.Generator | list[torch.Generator] | None) -> list:
        generators = generator if isinstance(generator, list) else [generator] * count
        if len(generators) != count:
            raise Hand1000Error(f"generator: {len(generators)} given for {count} prompts; give one an image")
        return generators

    def _start_noise(self, generators: list[torch.Generator | None]) -> torch.Tensor:
        size = self.unet.config.sample_size
        shape = (self.unet.config.in_channels, size, size)
        return torch.stack(
            [torch.randn(shape, generator=g, device=g.device if g is not None else None).cpu() for g in generators]
        )


def build_pipeline(
    base: BaseModel,
    *,
    unet: UNet2DConditionModel | None = None,
    fusion: Fusion | None = None,
    autoguidance_scale: float,
    **defaults: Any,
) -> Hand1000Pipeline:
    """The pipeline over a base model: as it is, or with a tuned UNet and a fusion.

    Args:
        base: its UNet draws if no other is given, and is the guide of the other if that needs one.
        unet: after Stage III.
        fusion: as Stage II left it.
        autoguidance_scale: the pipeline's default; the base model itself has none to lead away from, so there it is 1.
        defaults: mu, guidance_scale and the rest of what the pipeline uses when a call does not say.
    """
    tuned = unet is not None
    unet = unet or base.unet
    guide = base.unet if tuned and autoguidance_scale > 1 else None
    for part in (base.vae, base.unet, unet, fusion):
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
        guide,
        autoguidance_scale=autoguidance_scale if tuned else 1.0,
        **defaults,
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
