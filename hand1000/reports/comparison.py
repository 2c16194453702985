"""The report of a method comparison."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from hand1000.config.comparison import METHODS
from hand1000.core.tables import Table
from hand1000.evaluation.conclusions import describe_scope, draw_conclusions
from hand1000.evaluation.method_tables import (
    advantage_table,
    count_wins,
    difference_table,
    extra_metrics_table,
    gesture_table,
    interval_table,
    mean_table,
    paired_table,
)
from hand1000.evaluation.methods import MAX_MEMORIZED, OURS, PLAIN, MethodResults, is_repeated
from hand1000.hands.detection import read_square
from hand1000.pipelines.generation import make_image_grid
from hand1000.reports.difference_plot import plot_differences
from hand1000.reports.html import render_template
from hand1000.storage.files import write_json, write_text

_MIN_CELL_SIDE = 64
_RANKED_METRICS = ("gesture accuracy", "FID-H", "KID-H")


def write_comparison(folder: Path, results: MethodResults, images: Mapping[str, Mapping[str, Sequence[Path]]]) -> None:
    """Write `comparison.json`, `tables.md`, `images.png`, `differences.png` and `comparison.html`.

    `images` holds some images by gesture, then by method, of one training; the prompts and seeds of all methods are the
    same. Without Hand1000 and plain fine-tuning there is nothing to conclude, and no `differences.png`.
    """
    write_json(
        folder / "comparison.json",
        {
            gesture: {
                name: [result.model_dump(mode="json") for result in trainings] for name, trainings in methods.items()
            }
            for gesture, methods in results.items()
        },
    )
    tables = comparison_tables(results)
    wins = [
        f"{METHODS[name]} has the best {column} in {count} of {len(results)} gestures."
        for column in _RANKED_METRICS
        for name in next(iter(results.values()))
        if (count := count_wins(results, name, column))
    ]
    conclusions, scope = [item.text for item in draw_conclusions(results)], describe_scope(results)
    markdown = ["### What this shows\n", scope, "", *(f"- {text}" for text in conclusions), ""]
    markdown += [f"### {title}\n\n{table.markdown()}" for title, table in tables.items()]
    write_text(folder / "tables.md", "\n".join([*markdown, *wins]) + "\n")
    write_image_grid(folder / "images.png", images)
    plot = folder / "differences.png" if conclusions else None
    if plot:
        plot_differences(plot, results)
    page = render_template(
        "comparison.html.j2",
        grid=folder / "images.png",
        plot=plot,
        tables=tables,
        wins=wins,
        conclusions=conclusions,
        scope=scope,
        max_memorized=MAX_MEMORIZED,
    )
    write_text(folder / "comparison.html", page)


def comparison_tables(results: MethodResults) -> dict[str, Table]:
    """The tables by title. With one training of each gesture, none has an interval over trainings."""
    names, tables = next(iter(results.values())), {}
    count = f"{len(results)} gestures" if len(results) > 1 else "1 gesture"
    if is_repeated(results):
        tables[f"Mean of {count} with the 95 % interval over trainings and prompts"] = interval_table(results)
        if PLAIN in names:
            tables[f"Difference to {METHODS[PLAIN]} with the 95 % interval over trainings and prompts"] = (
                difference_table(results)
            )
    tables |= {
        f"Mean of {count}, with the difference to SD": mean_table(results),
        "Metrics that the paper does not report, mean": extra_metrics_table(results),
    }
    if OURS in names:
        tables["Advantage, mean and 95 % interval over the gestures"] = advantage_table(results)
        if not is_repeated(results):
            tables["Paired test, image by image"] = paired_table(results)
    return tables | {f"Gesture {gesture}": gesture_table(methods) for gesture, methods in results.items()}


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
