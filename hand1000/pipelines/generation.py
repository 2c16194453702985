"""Image generation in batches, each image with its own seed, as iterator, callable, files and grid."""

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image, ImageDraw, ImageFont
from safetensors.torch import load_file, save_file

from hand1000.core.errors import Hand1000Error
from hand1000.core.interruption import Interrupted
from hand1000.core.progress import CheckpointStore, ProgressCallback, report_step
from hand1000.data.imageset import ImageRecord
from hand1000.data.png import save_png
from hand1000.gestures import group_by_gesture
from hand1000.pipelines.pipeline_hand1000 import Hand1000Pipeline
from hand1000.storage.images import read_rgb

MAX_CHECKPOINTS = 10
"""Most checkpoints of one generation: each copies all images so far."""

_LATENTS = "latents.safetensors"
_GAP, _MIN_FONT_SIZE = 4, 13
"""Pixels between the images of a grid, and least size of its labels, which grow with the images."""


def generate(
    pipeline: Hand1000Pipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    gestures: Sequence[str] | None = None,
    batch_size: int = 4,
    **settings: Any,
) -> Iterator[Any]:
    """Generate one image per prompt, which depends on its prompt and seed alone, whatever its batch.

    Args:
        pipeline: Pipeline to call.
        prompts: N prompts.
        seeds: Random seed of each image, 0 to 2^63 - 1.
        gestures: Gesture of each prompt; by default the pipeline infers it.
        batch_size: Images per call of the pipeline, which decides the memory.
        settings: Arguments of the pipeline: `mu` and the like, or `output_type`, which is "pil" by default.
    """
    for start in range(0, len(prompts), batch_size):
        batch = slice(start, start + batch_size)
        yield from pipeline(
            list(prompts[batch]),
            gesture=None if gestures is None else gestures[batch],
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds[batch]],
            **settings,
        ).images


def generate_latents(
    pipeline: Hand1000Pipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    batch_size: int,
    checkpoint: CheckpointStore,
    on_progress: ProgressCallback,
) -> torch.Tensor:
    """Generate the scaled latents, (N, C, h, w) on the CPU, of the images of `generate`, without decoding them.

    Resumes from `checkpoint`, with the same batches.

    Raises:
        Interrupted: A signal came; the batches until then are saved.
    """
    pipeline.set_progress_bar_config(disable=True)
    latents: list[torch.Tensor] = []
    with checkpoint.workspace() as folder:
        if checkpoint.restore(Path(folder) / "state"):
            latents = list(load_file(Path(folder) / "state" / _LATENTS)["latents"])

    def save() -> None:
        with checkpoint.workspace() as folder:
            state = Path(folder) / "state"
            state.mkdir()
            save_file({"latents": torch.stack(latents)}, state / _LATENTS)
            checkpoint.save(state)

    images_per_checkpoint = -(-len(prompts) // (MAX_CHECKPOINTS * batch_size)) * batch_size
    for start in range(len(latents), len(prompts), batch_size):
        batch = slice(start, start + batch_size)
        try:
            images = generate(pipeline, prompts[batch], seeds[batch], batch_size=batch_size, output_type="latent")
            latents += [image_latents.cpu() for image_latents in images]
        except Interrupted:
            if latents:
                save()
            raise
        report_step(on_progress, len(latents), len(prompts), {}, save=save)
        if len(latents) % images_per_checkpoint == 0 and len(latents) < len(prompts):
            save()
    return torch.stack(latents)


@dataclass(frozen=True)
class GenerationRequest:
    """A request for one image; `file_name` ends in `.png`."""

    file_name: str
    prompt: str
    seed: int
    gesture: str

    @classmethod
    def from_record(cls, record: ImageRecord) -> Self:
        """Return the request for the image of a record, which must have a seed."""
        if record.seed is None:
            raise Hand1000Error(f"{record.file_name}: its record has no seed; pass generated images")
        return cls(record.file_name, record.text, record.seed, record.gesture)


ImageGenerator = Callable[[Sequence[GenerationRequest]], Iterable[Image.Image]]
"""Callable that returns one image per request, in order, which depends on its prompt, seed and gesture alone."""


def pipeline_generator(pipeline: Hand1000Pipeline, **settings: Any) -> ImageGenerator:
    """Return the generator that calls the pipeline with its own settings, or with those of `settings`."""
    pipeline.set_progress_bar_config(disable=True)

    def generate_images(requests: Sequence[GenerationRequest]) -> Iterator[Image.Image]:
        prompts, seeds, gestures = zip(*((item.prompt, item.seed, item.gesture) for item in requests), strict=True)
        return generate(pipeline, prompts, seeds, gestures=gestures, batch_size=len(requests), **settings)

    return generate_images


def load_generated(folder: Path) -> ImageGenerator:
    """Return the generator that reads the images from an image set instead of generating them again."""

    def read_images(requests: Sequence[GenerationRequest]) -> Iterator[Image.Image]:
        for request in requests:
            yield read_rgb(folder / request.file_name)

    return read_images


def generate_to_dir(
    generator: ImageGenerator,
    requests: list[GenerationRequest],
    directory: Path,
    *,
    batch_size: int,
    checkpoint: CheckpointStore,
    on_progress: ProgressCallback,
) -> None:
    """Generate the requested images in batches as PNG files in `directory`, and resume from `checkpoint`.

    Raises:
        Interrupted: A signal came; the batches until then are saved.
    """
    with checkpoint.workspace() as folder:
        if checkpoint.restore(Path(folder) / "state"):
            shutil.copytree(Path(folder) / "state", directory, dirs_exist_ok=True)

    def save() -> None:
        with checkpoint.workspace() as folder:
            checkpoint.save(Path(shutil.copytree(directory, Path(folder) / "state")))

    batches = [requests[start : start + batch_size] for start in range(0, len(requests), batch_size)]
    batches_per_checkpoint = -(-len(batches) // MAX_CHECKPOINTS)
    done = 0
    for number, batch in enumerate(batches, start=1):
        done += len(batch)
        if all((directory / request.file_name).is_file() for request in batch):
            continue
        try:
            for request, image in zip(batch, generator(batch), strict=True):
                save_png(image, directory / request.file_name)
        except Interrupted:
            for request in batch:
                (directory / request.file_name).unlink(missing_ok=True)
            save()
            raise
        report_step(on_progress, done, len(requests), {}, save=save)
        if number % batches_per_checkpoint == 0 and number < len(batches):
            save()


def make_image_grid(
    images: Sequence[Image.Image], columns: int, *, row_labels: Sequence[str] = (), column_labels: Sequence[str] = ()
) -> Image.Image:
    """Arrange images of one size in rows on white; labels, if any, are left of the rows and above the columns."""
    width, height = images[0].size
    rows = -(-len(images) // columns)
    font_size = max(_MIN_FONT_SIZE, height // 8)
    font = ImageFont.load_default(font_size)
    left = _GAP + max((round(font.getlength(label)) + 2 * _GAP for label in row_labels), default=0)
    top = round(1.5 * font_size) if column_labels else _GAP
    grid = Image.new("RGB", (left + columns * (width + _GAP), top + rows * (height + _GAP)), "white")
    pen = ImageDraw.Draw(grid)
    for row, label in enumerate(row_labels):
        pen.text((_GAP, top + row * (height + _GAP) + height // 2), label, "black", font, anchor="lm")
    for column, label in enumerate(column_labels):
        pen.text((left + column * (width + _GAP), top // 2), label, "black", font, anchor="lm")
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        grid.paste(image, (left + column * (width + _GAP), top + row * (height + _GAP)))
    return grid


def plan_generation(prompts: Sequence[ImageRecord], num_images: int, seed: int) -> list[ImageRecord]:
    """Return the records of the images to generate for an evaluation, `num_images` of each gesture.

    The gestures take turns, and so do the prompts of a gesture, again from the first where there are too few.

    Args:
        prompts: Records of the test images, whose texts are the prompts.
        num_images: Number of images of each gesture.
        seed: Random seed of the first image; that of each further image is greater by 1.
    """
    gestures = list(group_by_gesture(prompts).values())
    records = []
    for index in range(len(gestures) * num_images):
        turn, position = divmod(index, len(gestures))
        record = gestures[position][turn % len(gestures[position])]
        update = {"file_name": f"{index:06d}.png", "seed": seed + index, "bbox": None}
        records.append(record.model_copy(update=update))
    return records
