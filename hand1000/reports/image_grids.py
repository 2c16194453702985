"""Images of all models side by side, as PNG files that MLflow shows."""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from hand1000.core.rng import numpy_generator
from hand1000.data.imageset import read_image_set
from hand1000.reports.run import FinishedRun
from hand1000.storage.images import read_rgb

COLUMNS = 8
_CELL = 128
_LABEL = 96


def write_image_grids(folder: Path, run: FinishedRun) -> None:
    """Write `first.png` and `random.png`: a row for each model, a column for each prompt and seed.

    The random images are drawn by the run's seed, without the first ones if there are enough.
    """
    names = sorted(record.file_name for record in read_image_set(run.tuned_images))
    others = names[COLUMNS:] or names
    chosen = numpy_generator(run.settings.seed, "image grid").permutation(len(others))[:COLUMNS]
    rows = {"base": run.base_images, "champion": run.champion_images, "tuned": run.tuned_images}
    models = {name: images for name, images in rows.items() if images is not None}
    folder.mkdir(parents=True, exist_ok=True)
    _draw_grid(models, names[:COLUMNS]).save(folder / "first.png")
    _draw_grid(models, [others[index] for index in sorted(chosen)]).save(folder / "random.png")


def _draw_grid(models: dict[str, Path], names: list[str]) -> Image.Image:
    grid = Image.new("RGB", (_LABEL + _CELL * len(names), _CELL * len(models)), "white")
    draw = ImageDraw.Draw(grid)
    font = ImageFont.load_default(18)
    for row, (model, images) in enumerate(models.items()):
        draw.text((6, _CELL * row + _CELL // 2), model, fill="black", font=font, anchor="lm")
        for column, name in enumerate(names):
            cell = read_rgb(images / name).resize((_CELL, _CELL), Image.Resampling.LANCZOS)
            grid.paste(cell, (_LABEL + _CELL * column, _CELL * row))
    return grid
