"""`Hand1000Pipeline`, which generates images of the gesture from a prompt, and how to build and load it."""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiffusionPipeline, UNet2DConditionModel
from diffusers.utils import BaseOutput
from PIL import Image
from pydantic import ValidationError
from transformers import CLIPTextModel, CLIPTokenizer

from hand1000.captions.token_limit import TokenLimit, check_prompt
from hand1000.config.base import format_validation_error
from hand1000.config.sampler import SamplerSettings
from hand1000.core.devices import best_device
from hand1000.core.errors import Hand1000Error, one_line
from hand1000.core.interruption import raise_if_interrupted
from hand1000.gestures import find_gesture_in_prompt, gesture_phrase
from hand1000.models.base_model import BaseModel
from hand1000.models.ddim import ddim_step, sampling_timesteps
from hand1000.models.encoding import encode_texts
from hand1000.models.fusion import Fusion, double_fusion, gesture_indices
from hand1000.models.noise_schedule import make_noise_scheduler
from hand1000.pipelines.model_folder import INDEX, check_parts_of_pipeline, load_parts, read_index

logger = logging.getLogger(__name__)

StepCallback = Callable[["Hand1000Pipeline", int, int, dict[str, Any]], dict[str, Any]]
"""diffusers' callback at the end of a step; see `Hand1000Pipeline.__call__`."""


@dataclass
class Hand1000PipelineOutput(BaseOutput):
    """B PIL images; (B, H, W, 3) uint8 with `output_type="np"`; scaled latents (B, C, h, w) with "latent"."""

    images: list[Image.Image] | np.ndarray | torch.Tensor


class Hand1000Pipeline(DiffusionPipeline):
    """Stable Diffusion conditioned on h = mu*e + (1-mu)*g (paper, section 3.5).

    Without a fusion it is plain Stable Diffusion with the same sampler: the baseline of every comparison.

    The components are those of Stable Diffusion and two optional ones: `fusion`, the trained fusion with the gestures'
    features, and `guidance_unet`, the UNet before Stage III, from whose prediction autoguidance leads away. Of the
    scheduler, which may be of any class with betas, a new one is made that nothing else changes. The other
    arguments are the defaults of `__call__`, except for `fuse_null_prompt`: whether the null prompt of classifier-free
    guidance passes through the fusion too.
    """

    _optional_components = ["fusion", "guidance_unet"]
    model_cpu_offload_seq = "text_encoder->fusion->unet->guidance_unet->vae"

    def __init__(  # noqa: PLR0913 (diffusers registers components and settings by the constructor's arguments)
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        unet: UNet2DConditionModel,
        scheduler: DDIMScheduler,
        fusion: Fusion | None = None,
        guidance_unet: UNet2DConditionModel | None = None,
        mu: float = 0.7,
        guidance_scale: float = 3.0,
        autoguidance_scale: float = 1.0,
        autoguidance_interval: list[float] = [0.0, 1.0],  # noqa: B006 (only read; diffusers reads the annotation)
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
            scheduler=make_noise_scheduler(scheduler.config),
            fusion=fusion,
            guidance_unet=guidance_unet,
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

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike, dtype: torch.dtype = torch.float32, **parts: Any
    ) -> Self:
        """Load a model folder, also one of version 0.1, by this project's own loaders.

        Args:
            pretrained_model_name_or_path: Folder; `hand1000.load_pipeline` takes other addresses too.
            dtype: Floating-point type of the weights.
            parts: Components by name that replace those of the folder.

        Raises:
            Hand1000Error: The folder is not a Hand1000 model, or one of its files is missing or damaged.
        """
        folder = Path(pretrained_model_name_or_path)
        dtype = parts.pop("torch_dtype", dtype)
        # Options of diffusers' pipelines, of which only the safe values are known here.
        for option in ("use_safetensors", "local_files_only", "trust_remote_code"):
            parts.pop(option, None)
        paths, settings = read_index(folder)
        loaded = load_parts(folder, {name: path for name, path in paths.items() if name not in parts}, dtype)
        try:
            pipeline = cls(**loaded | parts, **settings)
            pipeline.sampler_settings()
        except ValidationError as error:
            raise Hand1000Error(format_validation_error(error, str(folder / INDEX))) from error
        except (TypeError, ValueError) as error:
            raise Hand1000Error(f"{folder}: not a Hand1000 model: {one_line(error)[:200]}") from error
        check_parts_of_pipeline(str(folder), pipeline)
        return pipeline

    @property
    def resolution(self) -> int:
        """Side of the generated images in pixels."""
        return self.unet.config.sample_size * 2 ** (len(self.vae.config.block_out_channels) - 1)

    def sampler_settings(self, **values: Any) -> SamplerSettings:
        """Resolve a call's own settings, `values` by name, over the model's; None stands for the model's.

        Raises:
            Hand1000Error: A value is out of range.
        """
        defaults = SamplerSettings.model_validate({name: self.config[name] for name in SamplerSettings.model_fields})
        return defaults.with_call_values(**values)

    @torch.no_grad()
    def encode_prompt(self, prompt: list[str], mu: float, gesture_ids: torch.Tensor) -> torch.Tensor:
        """Return the embeddings h of B prompts, (B, L, D), fused with the gestures of `gesture_ids`, (B,)."""
        embeddings = encode_texts(self.text_encoder, self.tokenizer, prompt)
        return embeddings if self.fusion is None or mu == 1 else double_fusion(embeddings, self.fusion, mu, gesture_ids)

    def encode_null_prompt(self, mu: float) -> torch.Tensor:
        """Return the embedding of the null prompt for each of the K gestures, (K, L, D); K is 1 without a fusion."""
        gesture_ids = torch.arange(len(self.fusion.gestures) if self.fusion is not None else 1)
        return self.encode_prompt([""] * len(gesture_ids), mu if self.config.fuse_null_prompt else 1.0, gesture_ids)

    def check_prompts(
        self, prompts: Sequence[str], gesture: str | Sequence[str] | None = None, *, need_phrase: bool = False
    ) -> None:
        """Check that the text encoder reads the gesture's phrase in every prompt; warn if it does not read the rest.

        Args:
            prompts: B prompts.
            gesture: Gesture of all prompts or of each, as for a call.
            need_phrase: Whether every prompt must have the phrase, without which the model draws the gesture less
                reliably. A model without a fusion needs none.

        Raises:
            Hand1000Error: A phrase is missing though needed, or is beyond the text encoder's window.
        """
        limit = TokenLimit.of(self.tokenizer)
        gestures = self.fusion.gestures if self.fusion is not None else ()
        for prompt, index in zip(prompts, self._gesture_ids(list(prompts), gesture).tolist(), strict=True):
            phrase = gesture_phrase(gestures[index]) if gestures else ""
            if unread := check_prompt(prompt, phrase, limit, need_phrase=need_phrase):
                logger.warning("prompt %r: the text encoder does not read its last %d tokens", prompt, unread)

    def check_inputs(self, prompt: list[str], generators: Sequence, autoguidance_scale: float) -> None:
        """Raise a Hand1000Error if a call has the wrong number of generators, or the model has no guidance UNet."""
        if len(generators) != len(prompt):
            raise Hand1000Error(
                f"generator: {len(generators)} given for {len(prompt)} prompts; give one generator per image"
            )
        if autoguidance_scale > 1 and self.guidance_unet is None:
            raise Hand1000Error(
                "autoguidance_scale: this model has no guidance UNet; choose 1, or train with more than 1"
            )

    def prepare_latents(
        self, generators: Sequence[torch.Generator | None], dtype: torch.dtype, device: torch.device
    ) -> torch.Tensor:
        """Sample the initial noise, (B, C, h, w), each image from its own generator."""
        size = self.unet.config.sample_size
        shape = (self.unet.config.in_channels, size, size)
        noise = torch.stack(
            [torch.randn(shape, generator=g, device=g.device if g is not None else None).cpu() for g in generators]
        )
        return noise.to(device, dtype)

    @torch.no_grad()
    def __call__(  # noqa: PLR0913 (diffusers' pipelines take the sampler's settings one by one)
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
        callback_on_step_end: StepCallback | None = None,
    ) -> Hand1000PipelineOutput:
        """Generate one image per prompt, all in one batch. Settings that are None are the model's own.

        Args:
            prompt: One prompt or several; each should contain the gesture's phrase.
            gesture: HaGRID's name of the gesture, one for all prompts or one per prompt. By default the one the model
                was trained on, or of several the one whose phrase the prompt contains. Ignored without a fusion.
            prompt_embeds: Embeddings that replace those of the prompts, (B, L, D).
            mu: Weight of the text embedding against the fused one, 0 to 1.
            guidance_scale: Scale of classifier-free guidance, 1 (off) to 50.
            autoguidance_scale: Scale by which the prediction is moved away from the guidance UNet's, 1 (off) to 10
                (Karras et al., 2024, arXiv 2406.02507).
            autoguidance_interval: Part of the noise schedule in which autoguidance is on, from 0, the clean end, to 1;
                the upper end is excluded (Kynkäänniemi et al., 2024, arXiv 2404.07724). Elsewhere it costs nothing.
            eta: Amount of fresh noise in each step (DDIM, equation 16): 0 none, 1 as much as DDPM.
            num_inference_steps: Number of sampling steps, 1 to 1000 and to the timesteps of the noise schedule.
            generator: One generator, or one per image, which makes an image independent of its batch.
            output_type: "pil", "np" or "latent".
            callback_on_step_end: Called after each step as `callback(pipeline, step, timestep, {"latents": latents})`.
                The `latents` of the dictionary that it returns replace the step's. An exception ends the call.

        Raises:
            Hand1000Error: A setting is out of range, the model has no guidance UNet for autoguidance, the model does
                not know the gesture, a prompt does not say which of several gestures it means, or it is so long that
                the text encoder does not read the gesture's phrase.
        """
        # 1. Resolve the settings and check the inputs
        prompt = [prompt] if isinstance(prompt, str) else list(prompt)
        generators = generator if isinstance(generator, list) else [generator] * len(prompt)
        sampler = self.sampler_settings(
            mu=mu,
            guidance_scale=guidance_scale,
            autoguidance_scale=autoguidance_scale,
            autoguidance_interval=autoguidance_interval,
            eta=eta,
            num_inference_steps=num_inference_steps,
        )
        autoguidance_start, autoguidance_end = sampler.autoguidance_interval
        self.check_inputs(prompt, generators, sampler.autoguidance_scale)
        do_classifier_free_guidance = sampler.guidance_scale > 1
        device = self.unet.device

        # 2. Encode the prompts
        gesture_ids = self._gesture_ids(prompt, gesture)
        if prompt_embeds is None:
            self.check_prompts(prompt, gesture)
            prompt_embeds = self.encode_prompt(prompt, sampler.mu, gesture_ids)
        prompt_embeds = prompt_embeds.to(device)
        encoder_hidden_states = prompt_embeds
        if do_classifier_free_guidance:
            encoder_hidden_states = torch.cat([self.encode_null_prompt(sampler.mu)[gesture_ids], prompt_embeds])

        # 3. Prepare the timesteps and the initial noise
        # A server runs calls of different lengths side by side, so the timesteps are not kept on the scheduler.
        timesteps = sampling_timesteps(self.scheduler, sampler.num_inference_steps)
        latents = self.prepare_latents(generators, encoder_hidden_states.dtype, device)
        # The sampler's noise comes from the same generators, so that an image depends on its own seed alone.
        step_generators: Any = None if generator is None else generators

        # 4. Denoise
        num_train_timesteps = self.scheduler.config.num_train_timesteps
        for index, (present, following) in enumerate(self.progress_bar(list(pairwise([*timesteps, None])))):
            t = torch.tensor(present, device=device)
            latent_model_input = torch.cat([latents, latents]) if do_classifier_free_guidance else latents
            noise_pred = self.unet(latent_model_input, t, encoder_hidden_states).sample
            noise_pred_uncond, noise_pred = noise_pred.chunk(2) if do_classifier_free_guidance else (None, noise_pred)
            if sampler.autoguidance_scale > 1 and autoguidance_start <= t / num_train_timesteps < autoguidance_end:
                noise_pred_weak = self.guidance_unet(latents, t, prompt_embeds).sample
                noise_pred = noise_pred_weak + sampler.autoguidance_scale * (noise_pred - noise_pred_weak)
            if do_classifier_free_guidance:
                noise_pred = noise_pred_uncond + sampler.guidance_scale * (noise_pred - noise_pred_uncond)
            latents = ddim_step(
                self.scheduler, noise_pred, latents, (present, following), eta=sampler.eta, generator=step_generators
            )
            raise_if_interrupted()
            if callback_on_step_end is not None:
                latents = callback_on_step_end(self, index, present, {"latents": latents}).pop("latents", latents)

        # 5. Decode the latents
        if output_type == "latent":
            return Hand1000PipelineOutput(images=latents)
        decoded = self.vae.decode(latents / self.vae.config.scaling_factor).sample
        # The pixels are rounded: a cast alone truncates, which darkens every image by half a level.
        pixels = ((decoded.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        images = pixels if output_type == "np" else [Image.fromarray(image) for image in pixels]
        return Hand1000PipelineOutput(images=images)

    def _gesture_ids(self, prompts: list[str], gesture: str | Sequence[str] | None) -> torch.Tensor:
        """Index of each prompt's gesture in the fusion, (B,)."""
        if self.fusion is None:
            return torch.zeros(len(prompts), dtype=torch.long)
        if gesture is None:
            gesture = [find_gesture_in_prompt(prompt, self.fusion.gestures) for prompt in prompts]
        gestures = [gesture] * len(prompts) if isinstance(gesture, str) else gesture
        if len(gestures) != len(prompts):
            raise Hand1000Error(
                f"gesture: {len(gestures)} given for {len(prompts)} prompts; give one, or one per prompt"
            )
        return gesture_indices(self.fusion, gestures)


def build_pipeline(
    base: BaseModel,
    *,
    unet: UNet2DConditionModel | None = None,
    fusion: Fusion | None = None,
    autoguidance_scale: float,
    **defaults: Any,
) -> Hand1000Pipeline:
    """Build the pipeline of a base model, or of one with the UNet of Stage III and the fusion of Stage II.

    With `unet`, the base model's UNet becomes the guidance UNet if `autoguidance_scale` needs one; without, there is no
    weaker UNet, and the scale is 1. `defaults` are the pipeline's other settings, such as `mu`.
    """
    is_tuned = unet is not None
    unet = unet or base.unet
    for component in (base.vae, base.unet, unet, fusion):
        if component is not None:
            # diffusers saves the path that a component was loaded from, which would give equal models different
            # digests on different machines.
            component.register_to_config(_name_or_path="")
    pipeline = Hand1000Pipeline(
        base.vae,
        base.text_encoder,
        base.tokenizer,
        unet,
        base.scheduler,
        fusion,
        guidance_unet=base.unet if is_tuned and autoguidance_scale > 1 else None,
        autoguidance_scale=autoguidance_scale if is_tuned else 1.0,
        **defaults,
    )
    return pipeline.to(base.unet.device)


def load_pipeline(folder: Path) -> Hand1000Pipeline:
    """Load a model folder onto the accelerator if there is one, without a progress bar.

    Raises:
        Hand1000Error: The folder is not a Hand1000 model, or one of its files is missing or broken.
    """
    pipeline = Hand1000Pipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(best_device())
