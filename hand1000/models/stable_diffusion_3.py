"""Stable Diffusion 3 and 3.5: a flow-matching transformer that reads two text encoders of CLIP and, optionally, T5."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hand1000.core.errors import Hand1000Error
from hand1000.models.conditioning import Conditioning
from hand1000.models.flow_transformer import FlowTransformer
from hand1000.models.stable_diffusion import check_sample_size, count_halvings
from hand1000.storage.pretrained import check_config, check_vocabulary, load_model
from hand1000.storage.pretrained import load_part as load_tokenizer

if TYPE_CHECKING:
    import torch
    from diffusers import StableDiffusion3Pipeline

T5_TOKENS = 256
"""Tokens of T5, or zeros in their place, after those of CLIP: `max_sequence_length` of the stock pipeline."""

_T5_FILES = ("tokenizer.json", "spiece.model")
"""Files with the words of T5, of which a tokenizer needs one."""


@dataclass(frozen=True)
class StableDiffusion3(FlowTransformer):
    """The parts of Stable Diffusion 3 or 3.5 (Esser et al., 2024, arXiv 2403.03206), with or without T5.

    Its tokens e are the second to last hidden states of both text encoders of CLIP side by side, filled up with zeros
    to T5's width, and after them T5's last hidden states, or zeros without T5. The pooled vectors of both are side by
    side too.
    """

    name = "sd3"
    title = "Stable Diffusion 3"
    pipeline_classes = ("StableDiffusion3Pipeline",)
    part_classes: ClassVar[Mapping[str, Collection[str]]] = {
        "transformer": ("SD3Transformer2DModel",),
        "scheduler": (),
        "vae": ("AutoencoderKL",),
        "text_encoder": ("CLIPTextModelWithProjection",),
        "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
        "text_encoder_2": ("CLIPTextModelWithProjection",),
        "tokenizer_2": ("CLIPTokenizer", "CLIPTokenizerFast"),
        "text_encoder_3": ("T5EncoderModel",),
        "tokenizer_3": ("T5Tokenizer", "T5TokenizerFast"),
    }
    optional_parts: ClassVar[Collection[str]] = ("text_encoder_3", "tokenizer_3")
    reads_more_than_tokens = True
    text_layers = ("context_embedder",)

    transformer: Any
    scheduler: Any
    vae: Any
    text_encoder: Any
    tokenizer: Any
    text_encoder_2: Any
    tokenizer_2: Any
    text_encoder_3: Any = None
    tokenizer_3: Any = None
    source: str = ""

    @classmethod
    def load_part(cls, name: str, path: Path, source: str, dtype: "torch.dtype") -> Any:
        """See `Backbone`."""
        if name == "tokenizer_3":
            from transformers import T5Tokenizer

            # Without a file transformers makes a tokenizer that knows no word.
            if not any((path / file).is_file() for file in _T5_FILES):
                files = " or ".join(_T5_FILES)
                raise Hand1000Error(
                    f"{path}: cannot be loaded as a tokenizer of T5: no {files}; restore it from a copy"
                )
            return load_tokenizer(T5Tokenizer, path, "a tokenizer of T5")
        if name == "text_encoder_3":
            from transformers import T5EncoderModel

            return load_model(T5EncoderModel, path, "a text encoder of T5", dtype=dtype)
        return super().load_part(name, path, source, dtype)

    @classmethod
    def read_resolution(cls, folder: Path, source: str) -> int:
        """See `Backbone`."""
        transformer, vae = (check_config(folder / part / "config.json") for part in ("transformer", "vae"))
        size = transformer.get("sample_size")
        check_sample_size(source, size, "transformer")
        resolution: int = size * 2 ** count_halvings(source, vae)
        return resolution

    def check(self, *further_denoisers: Any) -> None:
        """See `Backbone`."""
        source = self.source
        self.check_latent_scale()
        if self.tokenizer.model_max_length != self.tokenizer_2.model_max_length:
            raise Hand1000Error(f"{source}: the text encoders of CLIP read texts of different lengths")
        if (self.text_encoder_3 is None) != (self.tokenizer_3 is None):
            raise Hand1000Error(f"{source}: text_encoder_3 and tokenizer_3 belong together; name both or none of them")
        for transformer in (self.transformer, *further_denoisers):
            self._check_transformer(transformer.config)
        if self.text_encoder_3 is not None:
            check_vocabulary(self.tokenizer_3, self.text_encoder_3.get_input_embeddings(), source)

    def _check_transformer(self, config: Any) -> None:
        """Check that a transformer's sizes are those of the other parts."""
        source, channels = self.source, self.vae.config.latent_channels
        clip_width = self.text_encoder.config.hidden_size + self.text_encoder_2.config.hidden_size
        pooled = self.text_encoder.config.projection_dim + self.text_encoder_2.config.projection_dim
        check_sample_size(source, config.sample_size, "transformer")
        expected = {
            "in_channels": (channels, "the autoencoder's latents"),
            "out_channels": (channels, "the autoencoder's latents"),
            "pooled_projection_dim": (pooled, "the pooled vectors of CLIP"),
        }
        if self.text_encoder_3 is not None:
            expected["joint_attention_dim"] = (self.text_encoder_3.config.d_model, "the tokens of T5")
        self.check_sizes(config, expected)
        if config.joint_attention_dim < clip_width:
            raise Hand1000Error(
                f"{source}: transformer: joint_attention_dim is {config.joint_attention_dim!r:.40}, less than the "
                f"{clip_width!r:.40} of both text encoders of CLIP"
            )
        patch, largest = config.patch_size, config.pos_embed_max_size
        if config.sample_size % patch or config.sample_size // patch > largest:
            raise Hand1000Error(
                f"{source}: transformer: sample_size is {config.sample_size!r:.40}, not a multiple of "
                f"{patch!r:.40} up to {patch * largest!r:.40}"
            )

    @property
    def text_dim(self) -> int:
        """See `Backbone`."""
        width: int = self.transformer.config.joint_attention_dim
        return width

    def encode_text(self, texts: Sequence[str]) -> Conditioning:
        """See `Backbone`; L is that of CLIP and `T5_TOKENS` together."""
        import torch
        from torch.nn.functional import pad

        from hand1000.models.encoding import encode_penultimate, encode_texts

        first, pooled = encode_penultimate(self.text_encoder, self.tokenizer, texts)
        second, pooled_2 = encode_penultimate(self.text_encoder_2, self.tokenizer_2, texts)
        clip = torch.cat([first, second], dim=-1)
        clip = pad(clip, (0, self.text_dim - clip.shape[-1]))
        if self.text_encoder_3 is None:
            rest = clip.new_zeros(len(clip), T5_TOKENS, self.text_dim)
        else:
            rest = encode_texts(self.text_encoder_3, self.tokenizer_3, texts, length=T5_TOKENS).to(clip)
        assert pooled is not None and pooled_2 is not None
        return Conditioning(torch.cat([clip, rest], dim=1), torch.cat([pooled, pooled_2], dim=-1))

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """See `Backbone`."""
        config = self.transformer.config
        return config.in_channels, config.sample_size, config.sample_size

    @property
    def resolution(self) -> int:
        """See `Backbone`."""
        resolution: int = self.transformer.config.sample_size * 2 ** (len(self.vae.config.block_out_channels) - 1)
        return resolution

    def predict(
        self, latents: "torch.Tensor", timesteps: "torch.Tensor", conditioning: Conditioning, denoiser: Any = None
    ) -> "torch.Tensor":
        """See `Backbone`."""
        prediction: torch.Tensor = (denoiser or self.transformer)(
            hidden_states=latents,
            timestep=timesteps.expand(len(latents)),
            encoder_hidden_states=conditioning.tokens,
            pooled_projections=conditioning.pooled,
        ).sample
        return prediction

    def stock_pipeline(self) -> "StableDiffusion3Pipeline":
        """See `Backbone`."""
        from diffusers import StableDiffusion3Pipeline

        return StableDiffusion3Pipeline(**self.parts | {"scheduler": self.schedule.stock_scheduler()})
