"""`Hand1000Pipeline`, which generates images of the gesture from a prompt, and how to build and load it."""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from diffusers import DiffusionPipeline, ModelMixin
from diffusers.utils import BaseOutput
from PIL import Image
from pydantic import ValidationError

from hand1000.captions.token_limit import check_prompt
from hand1000.config.base import format_validation_error
from hand1000.config.sampler import SamplerName, SamplerSettings
from hand1000.core.devices import best_device
from hand1000.core.errors import Hand1000Error, one_line
from hand1000.core.interruption import raise_if_interrupted
from hand1000.gestures import find_gesture_in_prompt, gesture_phrase
from hand1000.models.backbone import Backbone
from hand1000.models.base_model import DEFAULT_BACKBONE, INDEX
from hand1000.models.conditioning import Conditioning
from hand1000.models.fusion import Fusion, double_fusion, gesture_indices
from hand1000.models.lean_blocks import cached_text
from hand1000.pipelines.guidance import GuidedPredictor
from hand1000.pipelines.model_folder import check_parts_of_pipeline, guidance_name, load_parts, read_index

logger = logging.getLogger(__name__)

StepCallback = Callable[["Hand1000Pipeline", int, int, dict[str, Any]], dict[str, Any]]
"""diffusers' callback at the end of a step; see `Hand1000Pipeline.__call__`."""


@dataclass
class Hand1000PipelineOutput(BaseOutput):
    """B PIL images; (B, H, W, 3) uint8 with `output_type="np"`; scaled latents (B, C, h, w) with "latent"."""

    images: list[Image.Image] | np.ndarray | torch.Tensor


class Hand1000Pipeline(DiffusionPipeline):
    """A text-to-image model conditioned on h = mu*e + (1-mu)*g (paper, section 3.5).

    Without a fusion it is the base model with the same sampler: the baseline of every comparison.

    The components are the parts of a backbone, such as Stable Diffusion's, and two optional ones: `fusion`, the trained
    fusion with the gestures' features, and `guidance_unet` (or `guidance_transformer`), the denoiser before Stage III,
    from whose prediction autoguidance leads away. Of the scheduler, which may be of any class that fits the backbone, a
    new one is made that nothing else changes. The other arguments are the defaults of `__call__`, except for
    `fuse_null_prompt`: whether the null prompt of classifier-free guidance passes through the fusion too.
    """

    def __init__(  # noqa: PLR0913 (settings one by one, as in `__call__`)
        self,
        backbone: Backbone,
        fusion: Fusion | None = None,
        guidance_denoiser: ModelMixin | None = None,
        *,
        mu: float = 0.7,
        guidance_scale: float = 3.0,
        autoguidance_scale: float = 1.0,
        autoguidance_interval: Sequence[float] = (0.0, 1.0),
        fuse_null_prompt: bool = True,
        sampler: SamplerName = "ddim",
        eta: float = 0.0,
        num_inference_steps: int = 45,
    ) -> None:
        super().__init__()
        self._backbone_class: type[Backbone] = type(backbone)
        self._source = backbone.source
        self.guidance_name = guidance_name(type(backbone))
        self._optional_components = ["fusion", self.guidance_name, *backbone.optional_parts]
        encoders = [name for name in backbone.part_names() if name.startswith("text_encoder")]
        order = [*encoders, "fusion", backbone.denoiser_name, self.guidance_name, "vae"]
        self.model_cpu_offload_seq = "->".join(order)
        self.register_modules(
            **backbone.parts | {"scheduler": backbone.make_scheduler(backbone.scheduler.config)},
            fusion=fusion,
            **{self.guidance_name: guidance_denoiser},
        )
        self.register_to_config(
            mu=mu,
            guidance_scale=guidance_scale,
            autoguidance_scale=autoguidance_scale,
            autoguidance_interval=list(autoguidance_interval),
            fuse_null_prompt=fuse_null_prompt,
            sampler=sampler,
            eta=eta,
            num_inference_steps=num_inference_steps,
        )
        if backbone.name != DEFAULT_BACKBONE:
            self.register_to_config(backbone=backbone.name, **backbone.options)

    @classmethod
    def _get_signature_keys(cls, obj: Any) -> tuple[list[str], list[str]]:
        """The names of components and of settings, which diffusers would take from the constructor's arguments."""
        components = [*obj._backbone_class.part_names(), "fusion", obj.guidance_name]
        settings = [*SamplerSettings.model_fields, "backbone", *obj._backbone_class.option_names]
        return sorted(components), sorted(settings)

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
        index = read_index(folder)
        paths = {name: path for name, path in index.parts.items() if name not in parts}
        parts = dict.fromkeys(index.backbone.optional_parts) | load_parts(index.backbone, paths, dtype) | parts
        try:
            fusion, guidance = parts.pop("fusion", None), parts.pop(guidance_name(index.backbone), None)
            backbone = index.backbone.of_parts(parts, index.values, str(folder))
            pipeline = cls(backbone, fusion, guidance, **index.settings)
            pipeline.sampler_settings()
        except ValidationError as error:
            raise Hand1000Error(format_validation_error(error, str(folder / INDEX))) from error
        except (TypeError, ValueError) as error:
            raise Hand1000Error(f"{folder}: not a Hand1000 model: {one_line(error)[:200]}") from error
        check_parts_of_pipeline(str(folder), pipeline)
        return pipeline

    @property
    def backbone(self) -> Backbone:
        """The backbone with the present components."""
        parts = {name: getattr(self, name) for name in self._backbone_class.part_names()}
        return self._backbone_class.of_parts(parts, self.config, self._source)

    @property
    def guidance_denoiser(self) -> Any:
        """The denoiser from whose prediction autoguidance leads away, or None."""
        return getattr(self, self.guidance_name)

    @property
    def resolution(self) -> int:
        """Side of the generated images in pixels."""
        return self.backbone.resolution

    def save_index_with_guidance(self, folder: Path, autoguidance_scale: float) -> None:
        """Name a guidance denoiser in the index of the saved model, whose folder `guidance_name` has it already."""
        self.register_to_config(
            **{self.guidance_name: self.config[self.backbone.denoiser_name], "autoguidance_scale": autoguidance_scale}
        )
        self.save_config(folder)

    def sampler_settings(self, **values: Any) -> SamplerSettings:
        """Resolve a call's own settings, `values` by name, over the model's; None stands for the model's.

        Raises:
            Hand1000Error: A value is out of range.
        """
        defaults = SamplerSettings.model_validate({name: self.config[name] for name in SamplerSettings.model_fields})
        return defaults.with_call_values(**values)

    @torch.no_grad()
    def encode_prompt(self, prompt: list[str], mu: float, gesture_ids: torch.Tensor) -> Conditioning:
        """Return the conditioning of B prompts, with tokens h fused with the gestures of `gesture_ids`, (B,)."""
        return self._fuse(self.backbone.encode_text(prompt), mu, gesture_ids)

    @torch.no_grad()
    def encode_null_prompt(self, mu: float) -> Conditioning:
        """Return the conditioning of the null prompt for each of the K gestures; K is 1 without a fusion."""
        backbone = self.backbone
        gesture_ids = torch.arange(len(self.fusion.gestures) if self.fusion is not None else 1)
        null = backbone.null_conditioning(backbone.encode_text([""] * len(gesture_ids)))
        return self._fuse(null, mu if self.config.fuse_null_prompt else 1.0, gesture_ids)

    def _fuse(self, conditioning: Conditioning, mu: float, gesture_ids: torch.Tensor) -> Conditioning:
        if self.fusion is None or mu == 1:
            return conditioning
        return conditioning.with_tokens(double_fusion(conditioning.tokens, self.fusion, mu, gesture_ids))

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
        limit = self.backbone.token_limit
        gestures = self.fusion.gestures if self.fusion is not None else ()
        for prompt, index in zip(prompts, self._gesture_ids(list(prompts), gesture).tolist(), strict=True):
            phrase = gesture_phrase(gestures[index]) if gestures else ""
            if unread := check_prompt(prompt, phrase, limit, need_phrase=need_phrase):
                logger.warning("prompt %r: the text encoder does not read its last %d tokens", prompt, unread)

    def check_inputs(self, prompt: list[str], generators: Sequence, autoguidance_scale: float) -> None:
        """Raise a Hand1000Error if a call has the wrong number of generators, or the model has no guidance denoiser."""
        if len(generators) != len(prompt):
            raise Hand1000Error(
                f"generator: {len(generators)} given for {len(prompt)} prompts; give one generator per image"
            )
        if autoguidance_scale > 1 and self.guidance_denoiser is None:
            raise Hand1000Error(
                "autoguidance_scale: this model has no guidance denoiser; choose 1, or train with more than 1"
            )

    def prepare_latents(
        self, generators: Sequence[torch.Generator | None], dtype: torch.dtype, device: torch.device
    ) -> torch.Tensor:
        """Sample the initial noise, (B, C, h, w), each image from its own generator."""
        shape = self.backbone.latent_shape
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
        sampler: SamplerName | None = None,
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
            prompt_embeds: Embeddings of the tokens that replace those of the prompts, (B, L, D).
            mu: Weight of the text embedding against the fused one, 0 to 1.
            guidance_scale: Scale of classifier-free guidance, 1 (off) to 50.
            autoguidance_scale: Scale by which the prediction is moved away from the guidance denoiser's, 1 (off) to 10
                (Karras et al., 2024, arXiv 2406.02507).
            autoguidance_interval: Part of the noise schedule in which autoguidance is on, from 0, the clean end, to 1;
                the upper end is excluded (Kynkäänniemi et al., 2024, arXiv 2404.07724). Elsewhere it costs nothing.
            sampler: "ddim", which is Euler's method in a flow model, or for diffusion models one of fewer steps:
                "dpmpp_2m", DPM-Solver++ of order 2; "dpmpp_2m_sde", the same with fresh noise in each step; "unipc".
            eta: Amount of fresh noise in each step of "ddim" (equation 16): 0 none, 1 as much as DDPM.
            num_inference_steps: Number of sampling steps, 1 to 1000 and to the timesteps of the noise schedule.
            generator: One generator, or one per image, which makes an image independent of its batch.
            output_type: "pil", "np" or "latent".
            callback_on_step_end: Called after each step as `callback(pipeline, step, timestep, {"latents": latents})`.
                The `latents` of the dictionary that it returns replace the step's. An exception ends the call.

        Raises:
            Hand1000Error: A setting is out of range, the model has no denoiser for autoguidance, the model does not
                know the gesture, a prompt does not say which of several gestures it means, or it is so long that the
                text encoder does not read the gesture's phrase.
        """
        # 1. Resolve the settings and check the inputs
        prompt = [prompt] if isinstance(prompt, str) else list(prompt)
        generators = generator if isinstance(generator, list) else [generator] * len(prompt)
        settings = self.sampler_settings(
            mu=mu,
            guidance_scale=guidance_scale,
            autoguidance_scale=autoguidance_scale,
            autoguidance_interval=autoguidance_interval,
            sampler=sampler,
            eta=eta,
            num_inference_steps=num_inference_steps,
        )
        self.check_inputs(prompt, generators, settings.autoguidance_scale)

        # 2. Encode the prompts
        predictor = self._make_predictor(prompt, gesture, prompt_embeds, settings)

        # 3. Prepare the timesteps and the initial noise
        # A server runs calls of different lengths side by side, so their state is not kept on the scheduler.
        backbone, dtype = self.backbone, predictor.conditioning.tokens.dtype
        sampling = backbone.schedule.start_sampling(settings.sampler, settings.num_inference_steps, settings.eta)
        latents = self.prepare_latents(generators, dtype, backbone.device)
        # The sampler's noise comes from the same generators, so that an image depends on its own seed alone.
        step_generators: Any = None if generator is None else generators

        # 4. Denoise
        with cached_text():
            for index, timestep in enumerate(self.progress_bar(sampling.timesteps)):
                latents = sampling.step(predictor(latents, timestep), latents, index, step_generators)
                raise_if_interrupted()
                if callback_on_step_end is not None:
                    changed = callback_on_step_end(self, index, timestep, {"latents": latents})
                    latents = changed.pop("latents", latents)

        # 5. Decode the latents
        if output_type == "latent":
            return Hand1000PipelineOutput(images=latents)
        pixels = backbone.decode(latents)
        images = pixels if output_type == "np" else [Image.fromarray(image) for image in pixels]
        return Hand1000PipelineOutput(images=images)

    def _make_predictor(
        self,
        prompt: list[str],
        gesture: str | Sequence[str] | None,
        prompt_embeds: torch.Tensor | None,
        settings: SamplerSettings,
    ) -> GuidedPredictor:
        """Encode the prompts, and the null prompt if the guidance needs it, on the denoiser's device."""
        backbone, gesture_ids = self.backbone, self._gesture_ids(prompt, gesture)
        if prompt_embeds is None:
            self.check_prompts(prompt, gesture)
            conditioning = self.encode_prompt(prompt, settings.mu, gesture_ids)
        else:
            conditioning = Conditioning(prompt_embeds)
            if backbone.reads_more_than_tokens:
                conditioning = backbone.encode_text(prompt).with_tokens(prompt_embeds)
        null_conditioning = None
        if settings.guidance_scale > 1:
            null_conditioning = self.encode_null_prompt(settings.mu).to(backbone.device)[gesture_ids]
        conditioning = conditioning.to(backbone.device)
        return GuidedPredictor(backbone, conditioning, null_conditioning, self.guidance_denoiser, settings)

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
    base: Backbone,
    *,
    tuned: ModelMixin | None = None,
    fusion: Fusion | None = None,
    autoguidance_scale: float,
    **defaults: Any,
) -> Hand1000Pipeline:
    """Build the pipeline of a base model, or of one with the denoiser of Stage III and the fusion of Stage II.

    With `tuned`, the base model's denoiser becomes the guidance denoiser if `autoguidance_scale` needs one; without,
    there is no weaker denoiser, and the scale is 1. `defaults` are the pipeline's other settings, such as `mu`.
    """
    for component in (*base.parts.values(), tuned, fusion):
        if isinstance(component, ModelMixin):
            # diffusers saves the path that a component was loaded from, which would give equal models different
            # digests on different machines.
            component.register_to_config(_name_or_path="")
    pipeline = Hand1000Pipeline(
        base if tuned is None else base.with_denoiser(tuned),
        fusion,
        base.denoiser if tuned is not None and autoguidance_scale > 1 else None,
        autoguidance_scale=autoguidance_scale if tuned is not None else 1.0,
        **defaults,
    )
    return pipeline.to(base.device)


def load_pipeline(folder: Path) -> Hand1000Pipeline:
    """Load a model folder onto the accelerator if there is one, without a progress bar.

    Raises:
        Hand1000Error: The folder is not a Hand1000 model, or one of its files is missing or broken.
    """
    pipeline = Hand1000Pipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(best_device())
