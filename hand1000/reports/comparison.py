"""The report of a method comparison."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from hand1000.evaluation.methods import (
    METHODS,
    MethodResults,
    advantage_table,
    count_wins,
    extra_metrics_table,
    gesture_table,
    mean_table,
    paired_table,
)
from hand1000.hands.detection import read_square
from hand1000.pipelines.generation import make_image_grid
from hand1000.reports.html import render_template
from hand1000.storage.files import write_json, write_text

_MIN_CELL_SIDE = 64
_RANKED_METRICS = ("gesture accuracy", "FID-H", "KID-H")


def write_comparison(folder: Path, results: MethodResults, images: Mapping[str, Mapping[str, Sequence[Path]]]) -> None:
    """Write `comparison.json`, `tables.md`, `images.png` and `comparison.html`.

    `images` holds some images by gesture, then by method; the prompts and seeds of all methods are the same.
    """
    write_json(
        folder / "comparison.json",
        {
            gesture: {name: result.model_dump(mode="json") for name, result in methods.items()}
            for gesture, methods in results.items()
        },
    )
    tables = {
        f"Mean of {len(results)} gestures, with the difference to SD": mean_table(results),
        "Metrics that the paper does not report, mean": extra_metrics_table(results),
        "Advantage, mean and 95 % interval over the gestures": advantage_table(results),
        "Paired test, image by image": paired_table(results),
    }
    tables |= {f"Gesture {gesture}": gesture_table(methods) for gesture, methods in results.items()}
    wins = [
        f"{METHODS[name]} has the best {column} in {count} of {len(results)} gestures."
        for column in _RANKED_METRICS
        for name in next(iter(results.values()))
        if (count := count_wins(results, name, column))
    ]
    markdown = [f"### {title}\n\n{table.markdown()}" for title, table in tables.items()]
    write_text(folder / "tables.md", "\n".join([*markdown, *wins]) + "\n")
    write_image_grid(folder / "images.png", images)
    page = render_template("comparison.html.j2", grid=folder / "images.png", tables=tables, wins=wins)
    write_text(folder / "comparison.html", page)


def write_image_grid(path: Path, images: Mapping[str, Mapping[str, Sequence[Path]]]) -> None:
    """Write the paper's qualitative figure as a PNG file: one row per method, one column per prompt."""
    names = list(next(iter(images.values())))
    columns = [(gesture, index) for gesture, methods in images.items() for index in range(len(methods[names[0]]))]
    cells = [Image.fromarray(read_square(images[gesture][name][index])) for name in names for gesture, index in columns]
    side = max(cells[0].width, _MIN_CELL_SIDE)
    grid = make_image_grid(
        [cell.resize((side, side)) for cell in cells],
        len(columns),
        row_labels=[METHODS[name] for name in names],
        column_labels=["" if index else gesture for gesture, index in columns],
    )
    grid.save(path)
