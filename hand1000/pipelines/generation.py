"""Pictures of a pipeline, each with its own seed."""

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image

from hand1000.core.errors import Hand1000Error
from hand1000.core.progress import CheckpointStore
from hand1000.data.imageset import ImageRecord
from hand1000.pipelines.pipeline_hand1000 import Hand1000Pipeline

MAX_CHECKPOINTS = 10
"""How often at most an unfinished generation is saved: more would copy its pictures over and over."""


def generate(
    pipeline: Hand1000Pipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    gestures: Sequence[str] | None = None,
    batch_size: int = 4,
    **settings: Any,
) -> Iterator[Image.Image]:
    """Draw one picture a prompt; each depends on its prompt and its seed alone, whatever the batch.

    Args:
        pipeline: that draws.
        prompts: any number of them.
        seeds: one a prompt, 0..2^63-1.
        gestures: one a prompt; by default as the pipeline finds them.
        batch_size: how many are drawn at a time; memory grows with it.
        settings: mu, guidance_scale and the rest of the pipeline's; None or left out means the model's own.

    Raises:
        Hand1000Error: as the pipeline.
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
    progress: Callable[[int, int], None],
) -> torch.Tensor:
    """The latents, scaled, (N, C, h, w) on the CPU, of what `generate` would draw: training needs no pixels."""
    pipeline.set_progress_bar_config(disable=True)
    drawn = []
    for start in range(0, len(prompts), batch_size):
        batch = slice(start, start + batch_size)
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds[batch]]
        latents = pipeline(list(prompts[batch]), generator=generators, output_type="latent").images
        drawn.append(torch.as_tensor(latents).cpu())
        progress(min(start + batch_size, len(prompts)), len(prompts))
    return torch.cat(drawn)


@dataclass(frozen=True)
class GenerationRequest:
    """A picture to be drawn."""

    file_name: str
    prompt: str
    seed: int
    gesture: str

    @classmethod
    def of(cls, record: ImageRecord) -> Self:
        """What a drawn picture was the answer to."""
        if record.seed is None:
            raise Hand1000Error(f"{record.file_name}: its record names no seed; give generated pictures")
        return cls(record.file_name, record.text, record.seed, record.gesture)


ImageGenerator = Callable[[Sequence[GenerationRequest]], Iterable[Image.Image]]
"""Whatever draws: a picture an order, in their order. What it draws depends on prompt, seed and gesture alone."""


def pipeline_generator(pipeline: Hand1000Pipeline) -> ImageGenerator:
    """The pipeline, with its own settings, as a system."""
    pipeline.set_progress_bar_config(disable=True)

    def system(orders: Sequence[GenerationRequest]) -> Iterator[Image.Image]:
        prompts, seeds, gestures = zip(*((one.prompt, one.seed, one.gesture) for one in orders), strict=True)
        return generate(pipeline, prompts, seeds, gestures=gestures, batch_size=len(orders))

    return system


def load_generated(folder: Path) -> ImageGenerator:
    """The pictures of an image set, as the system that drew them would draw them again."""

    def system(orders: Sequence[GenerationRequest]) -> Iterator[Image.Image]:
        for order in orders:
            with Image.open(folder / order.file_name) as picture:
                yield picture.convert("RGB")

    return system


def generate_to_dir(
    system: ImageGenerator,
    orders: list[GenerationRequest],
    out: Path,
    *,
    batch_size: int,
    checkpoint: CheckpointStore,
    progress: Callable[[int, int], None],
) -> None:
    """Draw `orders` in batches as PNG files in `out`; what an interrupted call drew is taken from `checkpoint`."""
    with tempfile.TemporaryDirectory() as folder:
        if checkpoint.restore(Path(folder)):
            shutil.copytree(folder, out, dirs_exist_ok=True)
    batches = [orders[start : start + batch_size] for start in range(0, len(orders), batch_size)]
    every = -(-len(batches) // MAX_CHECKPOINTS)
    done = 0
    for number, batch in enumerate(batches, start=1):
        done += len(batch)
        if all((out / order.file_name).is_file() for order in batch):
            continue
        for order, image in zip(batch, system(batch), strict=True):
            image.save(out / order.file_name)
        progress(done, len(orders))
        if number % every == 0 and number < len(batches):
            with tempfile.TemporaryDirectory() as folder:
                copy = Path(shutil.copytree(out, Path(folder) / "state"))
                checkpoint.save(copy)


def contact_sheet(images: list[Image.Image], columns: int, gap: int = 4) -> Image.Image:
    """The images, all of one size, row by row on white."""
    width, height = images[0].size
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + gap) + gap), "white")
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        sheet.paste(image, (gap + column * (width + gap), gap + row * (height + gap)))
    return sheet
