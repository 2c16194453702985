"""Loading of one part of a model by the name of its class, which a backbone declares and no file decides."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hand1000.captions.token_limit import load_tokenizer
from hand1000.storage.pretrained import load_model

if TYPE_CHECKING:
    import torch

_KINDS = {"vae": "an autoencoder", "unet": "a UNet", "transformer": "a transformer"}
"""What a part is, for errors."""


def load_part(class_name: str, name: str, path: Path, source: str, dtype: "torch.dtype") -> Any:
    """Load a tokenizer of CLIP, a text encoder of CLIP, an autoencoder or a denoiser.

    Args:
        class_name: A class of diffusers or transformers.
        name: Name of the part in a pipeline.
        path: Folder of the part; that of a tokenizer's text encoder is beside it.
        source: What an error of the tokenizer names.
        dtype: Type of the weights.

    Raises:
        Hand1000Error: A file is missing or damaged.
    """
    if name.startswith("tokenizer"):
        return load_tokenizer(path.parent, source, name.removeprefix("tokenizer"))
    if name.startswith("text_encoder"):
        import transformers

        return load_model(getattr(transformers, class_name), path, "a text encoder of CLIP", dtype=dtype)
    import diffusers

    from hand1000.models.lean_blocks import use_lean_blocks

    model = load_model(getattr(diffusers, class_name), path, _KINDS[name], torch_dtype=dtype)
    use_lean_blocks(model)
    return model
