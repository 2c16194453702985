"""Stable Diffusion XL: a UNet that reads two text encoders of CLIP, a pooled vector and the size of the image."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hand1000.core.errors import Hand1000Error
from hand1000.models.conditioning import Conditioning
from hand1000.models.stable_diffusion import LatentDiffusion

if TYPE_CHECKING:
    import numpy as np
    import torch
    from diffusers import StableDiffusionXLPipeline

NUM_TIME_IDS = 6
"""Numbers that describe the size of an image: original height and width, top and left of the crop, target size."""


@dataclass(frozen=True)
class StableDiffusionXL(LatentDiffusion):
    """The parts of Stable Diffusion XL (Podell et al., 2023, arXiv 2307.01952).

    Its tokens e are the second to last hidden states of both text encoders side by side, without a final layer norm.
    Without a negative prompt the stock pipeline takes zeros, unless `force_zeros_for_empty_prompt` is false.
    """

    name = "sdxl"
    title = "Stable Diffusion XL"
    pipeline_classes = ("StableDiffusionXLPipeline",)
    part_classes: ClassVar[Mapping[str, Collection[str]]] = {
        "vae": ("AutoencoderKL",),
        "text_encoder": ("CLIPTextModel",),
        "text_encoder_2": ("CLIPTextModelWithProjection",),
        "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
        "tokenizer_2": ("CLIPTokenizer", "CLIPTokenizerFast"),
        "unet": ("UNet2DConditionModel",),
        "scheduler": (),
    }
    option_names: ClassVar[Sequence[str]] = ("force_zeros_for_empty_prompt",)
    reads_more_than_tokens = True
    unsupported_options = ("class_embed_type", "encoder_hid_dim_type", "time_cond_proj_dim")

    vae: Any
    text_encoder: Any
    text_encoder_2: Any
    tokenizer: Any
    tokenizer_2: Any
    unet: Any
    scheduler: Any
    force_zeros_for_empty_prompt: bool = True
    source: str = ""

    def check(self, *further_denoisers: Any) -> None:
        """See `Backbone`."""
        super().check(*further_denoisers)
        if not isinstance(self.force_zeros_for_empty_prompt, bool):
            value = f"{self.force_zeros_for_empty_prompt!r:.40}"
            raise Hand1000Error(f"{self.source}: force_zeros_for_empty_prompt is {value}, not true or false")
        if self.tokenizer.model_max_length != self.tokenizer_2.model_max_length:
            raise Hand1000Error(f"{self.source}: the text encoders read texts of different lengths")
        if self.vae.config.get("latents_mean") is not None:
            raise Hand1000Error(f"{self.source}: vae: latents_mean is set; choose a model of {self.title}")
        for unet in (self.unet, *further_denoisers):
            kind, width = unet.config.addition_embed_type, unet.config.projection_class_embeddings_input_dim
            if kind != "text_time":
                raise Hand1000Error(f"{self.source}: unet: addition_embed_type is {kind!r:.40}, not text_time")
            pooled = self.text_encoder_2.config.projection_dim
            if width != NUM_TIME_IDS * (unet.config.addition_time_embed_dim or 0) + pooled:
                raise Hand1000Error(
                    f"{self.source}: unet: projection_class_embeddings_input_dim is {width!r:.40}, which does not fit "
                    f"{NUM_TIME_IDS} time ids and a pooled vector of {pooled!r:.40}"
                )

    @property
    def text_dim(self) -> int:
        """See `Backbone`."""
        width: int = self.text_encoder.config.hidden_size + self.text_encoder_2.config.hidden_size
        return width

    def encode_text(self, texts: Sequence[str]) -> Conditioning:
        """See `Backbone`."""
        import torch

        from hand1000.models.encoding import encode_penultimate

        tokens, _ = encode_penultimate(self.text_encoder, self.tokenizer, texts)
        tokens_2, pooled = encode_penultimate(self.text_encoder_2, self.tokenizer_2, texts)
        return Conditioning(torch.cat([tokens, tokens_2], dim=-1), pooled)

    def null_conditioning(self, empty: Conditioning) -> Conditioning:
        """See `Backbone`."""
        import torch

        return empty.map(torch.zeros_like) if self.force_zeros_for_empty_prompt else empty

    @classmethod
    def load_part(cls, name: str, path: Path, source: str, dtype: "torch.dtype") -> Any:
        """See `Backbone`; the autoencoder is loaded in float32, since the released one overflows in float16."""
        import torch

        return super().load_part(name, path, source, torch.float32 if name == "vae" else dtype)

    def encode_images(self, images: "np.ndarray", batch_size: int = 1) -> "torch.Tensor":
        """See `Backbone`; one image at a time, since a batch of 1,024 px would take tens of gigabytes."""
        return super().encode_images(images, 1)

    def decode(self, latents: "torch.Tensor") -> "np.ndarray":
        """See `Backbone`; one image at a time."""
        import numpy as np

        return np.concatenate([super(StableDiffusionXL, self).decode(latent[None]) for latent in latents])

    def predict(
        self, latents: "torch.Tensor", timesteps: "torch.Tensor", conditioning: Conditioning, denoiser: Any = None
    ) -> "torch.Tensor":
        """See `Backbone`."""
        import torch

        # Filled on the device: a copy from the host would end the recording of a CUDA graph.
        time_ids = torch.full((len(latents), NUM_TIME_IDS), float(self.resolution), device=latents.device)
        time_ids[:, 2:4] = 0  # An uncropped image.
        sizes = {"text_embeds": conditioning.pooled, "time_ids": time_ids}
        unet = denoiser or self.unet
        prediction: torch.Tensor = unet(latents, timesteps, conditioning.tokens, added_cond_kwargs=sizes).sample
        return prediction

    def stock_pipeline(self) -> "StableDiffusionXLPipeline":
        """See `Backbone`."""
        from diffusers import StableDiffusionXLPipeline

        return StableDiffusionXLPipeline(
            **self.parts | {"scheduler": self.schedule.stock_scheduler()},
            force_zeros_for_empty_prompt=self.force_zeros_for_empty_prompt,
            add_watermarker=False,
        )
