"""Image captioners: BLIP-2, PaliGemma and ViT-GPT2, as transformers implements them.

The image processors are those that compute with Pillow and NumPy, because transformers' default ones need torchvision.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from hand1000.captions.completion import to_plain_text
from hand1000.config.caption_settings import CaptionerSettings
from hand1000.core.devices import best_device
from hand1000.storage.hub import fetch_model_folder, model_identity
from hand1000.storage.images import read_rgb
from hand1000.storage.pretrained import load_model, load_part

_ModelParts = tuple[Callable[[list], Any], Any, Any]
"""The function that turns a batch of images into the model's inputs, the tokenizer, and the model."""

_TOKENIZER, _PROCESSOR = "a captioner's tokenizer", "a captioner's image processor"

DATASET_CAPTIONER: Final = "dataset"
"""Name of the captioner whose captions come with the data."""

FALLBACK_CAPTION = "a photo of a person"
"""Caption of an image that came without one; it is true of every image of a person's gesture."""

PALIGEMMA_PROMPT = "<image>caption en"


class VisionCaptioner:
    """A captioner that decodes without sampling, so that equal images get equal captions.

    The authors' 16 new tokens cut sentences off. The model loads when it first captions. `name` has its revision.
    """

    def __init__(self, settings: CaptionerSettings) -> None:
        self._settings = settings
        self.name = f"{settings.kind} {model_identity(settings.source)}"

    def caption(self, images: Sequence[Path]) -> list[str]:
        """Return one caption per image file of a batch, each on one line and without the gesture's phrase.

        Raises:
            Hand1000Error: The model lacks a part, or has it only as a pickle.
        """
        import torch

        to_inputs, tokenizer, model = self._loaded
        pixels = []
        for path in images:
            pixels.append(read_rgb(path))
        inputs = to_inputs(pixels).to(model.device)
        inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
        with torch.inference_mode():
            tokens = model.generate(
                **inputs,
                max_new_tokens=self._settings.max_new_tokens,
                num_beams=self._settings.num_beams,
                do_sample=False,
            )
        if "input_ids" in inputs:
            tokens = tokens[:, inputs["input_ids"].shape[1] :]
        return [to_plain_text(text) for text in tokenizer.batch_decode(tokens, skip_special_tokens=True)]

    @cached_property
    def _loaded(self) -> _ModelParts:
        import torch

        device = best_device()
        dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
        kind, source = self._settings.kind, self._settings.source
        folder = fetch_model_folder(source)
        load = {"blip2": _load_blip2, "paligemma": _load_paligemma, "vit-gpt2": _load_vit_gpt2}[kind]
        to_inputs, tokenizer, model = load(folder, dtype)
        return to_inputs, tokenizer, model.to(device)


def _load_blip2(folder: Path, dtype: Any) -> _ModelParts:
    from transformers import AutoTokenizer, Blip2ForConditionalGeneration, Blip2Processor, BlipImageProcessorPil

    model = load_model(Blip2ForConditionalGeneration, folder, "blip2", dtype=dtype)
    processor = Blip2Processor(
        load_part(BlipImageProcessorPil, folder, _PROCESSOR),
        load_part(AutoTokenizer, folder, _TOKENIZER),
        num_query_tokens=model.config.num_query_tokens,
    )

    def to_inputs(images: list) -> Any:
        return processor(images=images, text=[""] * len(images), return_tensors="pt")

    return to_inputs, processor.tokenizer, model


def _load_paligemma(folder: Path, dtype: Any) -> _ModelParts:
    from transformers import (
        AutoTokenizer,
        PaliGemmaForConditionalGeneration,
        PaliGemmaProcessor,
        SiglipImageProcessorPil,
    )

    model = load_model(PaliGemmaForConditionalGeneration, folder, "paligemma", dtype=dtype)
    image_processor = load_part(SiglipImageProcessorPil, folder, _PROCESSOR)
    vision = model.config.vision_config
    image_processor.image_seq_length = (vision.image_size // vision.patch_size) ** 2
    processor = PaliGemmaProcessor(image_processor, load_part(AutoTokenizer, folder, _TOKENIZER))

    def to_inputs(images: list) -> Any:
        inputs = processor(images=images, text=[PALIGEMMA_PROMPT] * len(images), return_tensors="pt")
        inputs.pop("labels", None)  # With labels, generation would compute a training loss.
        return inputs

    return to_inputs, processor.tokenizer, model


def _load_vit_gpt2(folder: Path, dtype: Any) -> _ModelParts:
    from transformers import AutoTokenizer, VisionEncoderDecoderModel, ViTImageProcessorPil

    # The decoder reads every patch, so that a pooler is not used.
    model = load_model(VisionEncoderDecoderModel, folder, "vit-gpt2", may_lack=r"^encoder\.pooler\.", dtype=dtype)
    tokenizer = load_part(AutoTokenizer, folder, _TOKENIZER)
    # GPT-2 has a single special token, its end of text, which serves as all three.
    model.generation_config.decoder_start_token_id = tokenizer.bos_token_id
    model.generation_config.pad_token_id = tokenizer.eos_token_id
    image_processor = load_part(ViTImageProcessorPil, folder, _PROCESSOR)
    return lambda images: image_processor(images=images, return_tensors="pt"), tokenizer, model
