"""Captions by image captioners, with transformers' own classes: BLIP-2, PaliGemma and ViT-GPT2.

The image processors are those that compute by Pillow and NumPy: transformers' first choice needs torchvision.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from hand1000.captions.completion import to_plain_text
from hand1000.core.devices import best_device
from hand1000.core.errors import Hand1000Error, one_line
from hand1000.storage.hub import fetch_model_folder, model_identity

Kind = Literal["blip2", "paligemma", "vit-gpt2"]

PALIGEMMA_PROMPT = "<image>caption en"


class VisionCaptioner:
    """A `Captioner` that looks at the images, in batches, by greedy or beam search, so always with one result.

    Args:
        kind: of the model.
        source: a folder, an `s3://` address, or a hub id with its revision.
        batch_size: images captioned at a time; memory grows with it.
        max_new_tokens: of a caption; the authors' 16 cut sentences off.
        num_beams: 1 is greedy.
    """

    def __init__(
        self, kind: Kind, source: str, *, batch_size: int = 16, max_new_tokens: int = 40, num_beams: int = 1
    ) -> None:
        self.kind, self.source, self.batch_size = kind, source, batch_size
        self.options = {"max_new_tokens": max_new_tokens, "num_beams": num_beams, "do_sample": False}
        self.name = f"{kind} {model_identity(source)}"

    def caption(self, images: Sequence[Path], known: Sequence[str | None]) -> list[str]:
        """See `Captioner`; `known` is passed over.

        Raises:
            Hand1000Error: the model lacks a part, or holds it only as a pickle.
        """
        captions: list[str] = []
        for start in range(0, len(images), self.batch_size):
            captions += self._batch(images[start : start + self.batch_size])
        return captions

    def _batch(self, paths: Sequence[Path]) -> list[str]:
        import torch
        from PIL import Image

        inputs_of, tokenizer, model = self._loaded
        pictures = []
        for path in paths:
            with Image.open(path) as picture:
                pictures.append(picture.convert("RGB"))
        inputs = inputs_of(pictures).to(model.device)
        inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
        with torch.inference_mode():
            tokens = model.generate(**inputs, **self.options)
        if "input_ids" in inputs:
            tokens = tokens[:, inputs["input_ids"].shape[1] :]
        return [to_plain_text(text) for text in tokenizer.batch_decode(tokens, skip_special_tokens=True)]

    @cached_property
    def _loaded(self) -> tuple[Callable[[list], Any], Any, Any]:
        """What makes a batch of pictures the model's inputs, the tokenizer, and the model."""
        import torch

        device = best_device()
        dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
        folder = fetch_model_folder(self.source)
        load = {"blip2": _load_blip2, "paligemma": _load_paligemma, "vit-gpt2": _load_vit_gpt2}[self.kind]
        try:
            inputs_of, tokenizer, model = load(folder, {"dtype": dtype, "use_safetensors": True})
        except (OSError, ValueError, KeyError) as error:
            reason = one_line(error)[:300]
            raise Hand1000Error(f"{self.source}: cannot be loaded as {self.kind}: {reason}") from error
        return inputs_of, tokenizer, model.to(device).eval()


def _load_blip2(folder: Path, options: dict[str, Any]) -> tuple[Callable[[list], Any], Any, Any]:
    from transformers import (
        AutoTokenizer,
        Blip2ForConditionalGeneration,
        Blip2Processor,
        BlipImageProcessorPil,
    )

    model = Blip2ForConditionalGeneration.from_pretrained(folder, **options)
    processor = Blip2Processor(
        BlipImageProcessorPil.from_pretrained(folder),
        AutoTokenizer.from_pretrained(folder),
        num_query_tokens=model.config.num_query_tokens,
    )
    return (
        lambda pictures: processor(images=pictures, text=[""] * len(pictures), return_tensors="pt"),
        processor.tokenizer,
        model,
    )


def _load_paligemma(folder: Path, options: dict[str, Any]) -> tuple[Callable[[list], Any], Any, Any]:
    from transformers import (
        AutoTokenizer,
        PaliGemmaForConditionalGeneration,
        PaliGemmaProcessor,
        SiglipImageProcessorPil,
    )

    model = PaliGemmaForConditionalGeneration.from_pretrained(folder, **options)
    images = SiglipImageProcessorPil.from_pretrained(folder)
    vision = model.config.vision_config
    images.image_seq_length = (vision.image_size // vision.patch_size) ** 2
    processor = PaliGemmaProcessor(images, AutoTokenizer.from_pretrained(folder))

    def inputs_of(pictures: list) -> Any:
        inputs = processor(images=pictures, text=[PALIGEMMA_PROMPT] * len(pictures), return_tensors="pt")
        inputs.pop("labels", None)  # For training; generation would compute a loss of them.
        return inputs

    return inputs_of, processor.tokenizer, model


def _load_vit_gpt2(folder: Path, options: dict[str, Any]) -> tuple[Callable[[list], Any], Any, Any]:
    from transformers import AutoTokenizer, VisionEncoderDecoderModel, ViTImageProcessorPil

    model = VisionEncoderDecoderModel.from_pretrained(folder, **options)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    # GPT-2 has no such tokens of its own; its one mark of an end serves as all three.
    model.generation_config.decoder_start_token_id = tokenizer.bos_token_id
    model.generation_config.pad_token_id = tokenizer.eos_token_id
    images = ViTImageProcessorPil.from_pretrained(folder)
    return lambda pictures: images(images=pictures, return_tensors="pt"), tokenizer, model
