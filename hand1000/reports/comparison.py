"""The page of a comparison of systems."""

from collections.abc import Mapping, Sequence
from html import escape
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
from hand1000.pipelines.generation import make_image_grid
from hand1000.reports.html import image, page, section
from hand1000.storage.files import write_json, write_text

_COUNTED = ("gesture accuracy", "FID-H", "KID-H")


def write_comparison(folder: Path, cells: MethodResults, pictures: Mapping[str, Mapping[str, Sequence[Path]]]) -> None:
    """Write `comparison.json`, `tables.md`, `pictures.png` and, with all of it, `comparison.html`.

    Args:
        folder: an existing one.
        cells: by gesture, then by system.
        pictures: the same, some pictures each: of a gesture from the same prompts and seeds for each system.
    """
    write_json(
        folder / "comparison.json",
        {
            gesture: {name: cell.model_dump(mode="json") for name, cell in of_gesture.items()}
            for gesture, of_gesture in cells.items()
        },
    )
    tables = {f"Mean of {len(cells)} gestures, difference to SD": mean_table(cells).markdown()}
    tables["What the paper does not measure, mean"] = extra_metrics_table(cells).markdown()
    tables["Ahead, over the gestures"] = advantage_table(cells).markdown()
    tables["The same prompts and seeds, picture by picture"] = paired_table(cells).markdown()
    tables |= {gesture: gesture_table(of_gesture).markdown() for gesture, of_gesture in cells.items()}
    names = list(next(iter(cells.values())))
    count = "".join(
        f"{METHODS[name]} is the best by {column} in {count_wins(cells, name, column)} of {len(cells)} gestures.\n"
        for column in _COUNTED
        for name in names
        if count_wins(cells, name, column)
    )
    write_text(
        folder / "tables.md", "\n".join(f"### {title}\n\n{table}" for title, table in tables.items()) + f"\n{count}"
    )
    plot_images(folder / "pictures.png", pictures)
    sections = [
        "<header><h1>Six systems, the same prompts and seeds</h1></header>",
        section("Pictures, the first of each gesture", image(folder / "pictures.png", "a row a system")),
        *(section(title, f"<pre>{escape(table)}</pre>") for title, table in tables.items()),
        section("Firsts", f"<pre>{escape(count)}</pre>"),
    ]
    write_text(folder / "comparison.html", page("Hand1000: comparison", sections))


def plot_images(path: Path, images: Mapping[str, Mapping[str, Sequence[Path]]]) -> None:
    """Write the paper's figure as a PNG file: one row per method, one column per prompt."""
    names = list(next(iter(images.values())))
    columns = [(gesture, index) for gesture, methods in images.items() for index in range(len(methods[names[0]]))]
    with Image.open(images[columns[0][0]][names[0]][0]) as first:
        side = max(first.size[0], 64)

    def read(file: Path) -> Image.Image:
        with Image.open(file) as image:
            return image.convert("RGB").resize((side, side))

    cells = [read(images[gesture][name][index]) for name in names for gesture, index in columns]
    row_labels, column_labels = [METHODS[name] for name in names], [gesture for gesture, _ in columns]
    make_image_grid(cells, len(columns), row_labels=row_labels, column_labels=column_labels).save(path)
