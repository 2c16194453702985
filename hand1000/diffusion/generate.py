"""Pictures for the measurement: the same prompts and seeds for every model."""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from hand1000.diffusion.pipeline import Hand1000Pipeline
from hand1000.diffusion.progress import Checkpoint

SAVES = 10
"""How often at most an unfinished generation is saved: more would copy its pictures over and over."""


@dataclass(frozen=True)
class Order:
    """A picture to be drawn."""

    file_name: str
    prompt: str
    seed: int


def draw(
    pipeline: Hand1000Pipeline,
    orders: list[Order],
    out: Path,
    *,
    batch_size: int,
    checkpoint: Checkpoint,
    progress: Callable[[int, int], None],
) -> None:
    """Draw `orders` in batches as PNG files in `out`.

    Each picture has its own generator, so it depends on its prompt and seed alone. What an interrupted call drew is
    taken from `checkpoint`.
    """
    pipeline.set_progress_bar_config(disable=True)
    with tempfile.TemporaryDirectory() as folder:
        if checkpoint.restore(Path(folder)):
            shutil.copytree(folder, out, dirs_exist_ok=True)
    batches = [orders[start : start + batch_size] for start in range(0, len(orders), batch_size)]
    every = -(-len(batches) // SAVES)
    done = 0
    for number, batch in enumerate(batches, start=1):
        done += len(batch)
        if all((out / order.file_name).is_file() for order in batch):
            continue
        generators = [torch.Generator("cpu").manual_seed(order.seed) for order in batch]
        images = pipeline([order.prompt for order in batch], generator=generators).images
        for order, image in zip(batch, images, strict=True):
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
