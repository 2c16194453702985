"""CLIP: embeddings of images and texts in one space."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from hand1000.core.devices import best_device
from hand1000.storage.hub import fetch_model_folder, model_identity
from hand1000.storage.images import read_rgb
from hand1000.storage.pretrained import check_vocabulary, load_model, load_part


class Clip:
    """CLIP's image encoder and text encoder, loaded at the first use.

    Args:
        source: Folder, `s3://` address, or hub id with its revision.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.name = model_identity(source)

    @cached_property
    def _loaded(self) -> tuple[Any, Any, Any]:
        from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

        folder = fetch_model_folder(self.source)
        model = load_model(CLIPModel, folder, "CLIP")
        tokenizer = load_part(AutoTokenizer, folder, "a tokenizer of CLIP")
        processor = load_part(CLIPImageProcessorPil, folder, "an image processor of CLIP")
        check_vocabulary(tokenizer, model.text_model.embeddings.token_embedding, self.source)
        return model.to(best_device()), tokenizer, processor

    def embed(self, images: Sequence[Path], texts: Sequence[str]) -> tuple[Any, Any]:
        """Unit embeddings (B, D) of the images and of the texts, float64 on the CPU.

        Raises:
            Hand1000Error: The model is missing or is not CLIP.
        """
        import torch

        model, tokenizer, processor = self._loaded
        opened = [read_rgb(path) for path in images]
        pixels = processor(images=opened, return_tensors="pt").to(model.device)
        tokens = tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt").to(model.device)
        with torch.inference_mode():
            output = model(**tokens, **pixels)
        return output.image_embeds.double().cpu(), output.text_embeds.double().cpu()
