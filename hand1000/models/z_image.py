"""Z-Image: a flow-matching transformer that reads the prompt through the language model Qwen3."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hand1000.captions.chat_tokenizer import CHAT_TOKENS, chat_limit, load_chat_tokenizer
from hand1000.captions.token_limit import TokenLimit
from hand1000.core.errors import Hand1000Error
from hand1000.models.conditioning import Conditioning
from hand1000.models.flow_schedule import FlowSchedule, make_flow_scheduler
from hand1000.models.flow_transformer import FlowTransformer
from hand1000.models.stable_diffusion import check_sample_size, count_halvings
from hand1000.storage.pretrained import check_config, check_vocabulary, load_model

if TYPE_CHECKING:
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline

TIMESTEPS = 1000
"""Number of timesteps that the stock pipeline takes for granted."""

_PATCH = 2
"""Side in latents of what the transformer reads as one token."""


@dataclass(frozen=True)
class ZImage(FlowTransformer):
    """The parts of Z-Image (Z-Image Team, 2025, arXiv 2511.22699).

    Its tokens e are the second to last hidden states of Qwen3, which reads the prompt as a chat, behind the norm
    through which they enter the transformer; see `hand1000.models.z_image_text`. The transformer reads as many as a
    text has, and fills up with a learned token of its own, which no fusion reaches.
    """

    name = "zimage"
    title = "Z-Image"
    pipeline_classes = ("ZImagePipeline",)
    part_classes: ClassVar[Mapping[str, Collection[str]]] = {
        "scheduler": (),
        "vae": ("AutoencoderKL",),
        "text_encoder": ("Qwen3Model",),
        "tokenizer": ("Qwen2Tokenizer", "Qwen2TokenizerFast"),
        "transformer": ("ZImageTransformer2DModel",),
    }
    reads_more_than_tokens = True
    text_layers = ("cap_embedder.1",)

    scheduler: Any
    vae: Any
    text_encoder: Any
    tokenizer: Any
    transformer: Any
    source: str = ""

    def __post_init__(self) -> None:
        from hand1000.models.z_image_text import move_out_norm

        move_out_norm(self.transformer)

    @classmethod
    def load_part(cls, name: str, path: Path, source: str, dtype: "torch.dtype") -> Any:
        """See `Backbone`."""
        if name == "tokenizer":
            return load_chat_tokenizer(path, source)
        if name == "text_encoder":
            from transformers import Qwen3Model

            # A language model has a layer for its answers, too.
            return load_model(Qwen3Model, path, "a text encoder of Qwen3", ignored=r"^lm_head\.", dtype=dtype)
        part = super().load_part(name, path, source, dtype)
        if name == "transformer":
            from hand1000.models.z_image_text import move_out_norm

            move_out_norm(part)
        return part

    @classmethod
    def make_scheduler(cls, config: Mapping[str, Any], source: str = "scheduler") -> "FlowMatchEulerDiscreteScheduler":
        """See `Backbone` and `make_flow_scheduler`."""
        scheduler = make_flow_scheduler(config, source)
        if (total := scheduler.config.num_train_timesteps) != TIMESTEPS:
            raise Hand1000Error(f"{source}: num_train_timesteps is {total}, but Z-Image has {TIMESTEPS}")
        return scheduler

    @classmethod
    def read_resolution(cls, folder: Path, source: str) -> int:
        """See `Backbone`. Of Z-Image's parts only the autoencoder names a size of images."""
        vae = check_config(folder / "vae" / "config.json")
        size, factor = vae.get("sample_size"), _PATCH * 2 ** count_halvings(source, vae)
        if isinstance(size, bool) or not isinstance(size, int) or size % factor:
            raise Hand1000Error(f"{source}: vae: sample_size is {size!r:.40}, not a multiple of {factor}")
        check_sample_size(source, _PATCH * size // factor, "vae")
        return size

    def check(self, *further_denoisers: Any) -> None:
        """See `Backbone`."""
        self.check_latent_scale()
        for transformer in (self.transformer, *further_denoisers):
            self._check_transformer(transformer.config)
        check_vocabulary(self.tokenizer, self.text_encoder.get_input_embeddings(), self.source)

    def _check_transformer(self, config: Any) -> None:
        """Check that a transformer's sizes are those of the other parts."""
        source, side = self.source, self.latent_shape[1] // _PATCH
        channels, width = self.vae.config.latent_channels, self.text_encoder.config.hidden_size
        self.check_sizes(
            config,
            {
                "in_channels": (channels, "the autoencoder's latents"),
                "cap_feat_dim": (width, "the hidden states of Qwen3"),
            },
        )
        if (
            config.siglip_feat_dim is not None
            or _PATCH not in config.all_patch_size
            or 1 not in config.all_f_patch_size
        ):
            raise Hand1000Error(
                f"{source}: transformer: reads images or patches of another size; choose Z-Image or Z-Image-Turbo"
            )
        # Positions of the padded text and one of the image, and those of the image's rows and columns.
        if any(length < least for length, least in zip(config.axes_lens, (CHAT_TOKENS + 2, side, side), strict=True)):
            raise Hand1000Error(
                f"{source}: transformer: axes_lens is {config.axes_lens!r:.40}, too few for {CHAT_TOKENS} tokens and "
                f"images of {self.resolution} px"
            )

    @property
    def text_dim(self) -> int:
        """See `Backbone`."""
        width: int = self.transformer.config.cap_feat_dim
        return width

    @classmethod
    def limit_of(cls, tokenizer: Any) -> TokenLimit:
        """See `Backbone`."""
        return chat_limit(tokenizer)

    def encode_text(self, texts: Sequence[str]) -> Conditioning:
        """See `Backbone`; L is `CHAT_TOKENS`, and the tokens after those of a text are zeros."""
        from hand1000.models.z_image_text import encode_chats

        tokens, lengths = encode_chats(self.text_encoder, self.tokenizer, texts, self.transformer.cap_embedder[0])
        return Conditioning(tokens, lengths=lengths)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """See `Backbone`."""
        side = self.resolution // 2 ** (len(self.vae.config.block_out_channels) - 1)
        return self.transformer.config.in_channels, side, side

    @property
    def resolution(self) -> int:
        """See `Backbone`."""
        resolution: int = self.vae.config.sample_size
        return resolution

    @property
    def schedule(self) -> FlowSchedule:
        """See `Backbone`."""
        return FlowSchedule(self.scheduler, shifts_once=True)

    def predict(
        self, latents: "torch.Tensor", timesteps: "torch.Tensor", conditioning: Conditioning, denoiser: Any = None
    ) -> "torch.Tensor":
        """See `Backbone`. The transformer is given 1 - s, and predicts x - n."""
        import torch

        tokens = list(conditioning.tokens)
        if conditioning.lengths is not None:
            tokens = [row[:length] for row, length in zip(tokens, conditioning.lengths.tolist(), strict=True)]
        # It takes images as videos of one frame.
        frames = list(latents.contiguous()[:, :, None])
        times = ((TIMESTEPS - timesteps) / TIMESTEPS).expand(len(latents))
        predictions = (denoiser or self.transformer)(frames, times, tokens).sample
        return -torch.stack(predictions)[:, :, 0]

    def stock_guidance_scale(self, scale: float) -> float:
        """See `Backbone`; the stock pipeline adds the difference of the predictions to that with the prompt."""
        return scale - 1

    def stock_pipeline(self) -> "ZImagePipeline":
        """See `Backbone`."""
        from diffusers import ZImagePipeline

        from hand1000.models.z_image_text import restore_norm

        own = {"transformer": restore_norm(self.transformer), "scheduler": self.schedule.stock_scheduler()}
        return ZImagePipeline(**self.parts | own)
