"""The page docs/performance.md: the rows of `make bench`, the plot of growth, and what a GPU printed."""

import json
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.growth import Growth, find_faults, format_growth, plot_growth
from benchmarks.rows import Row

TEMPLATE = Path(__file__).with_name("performance.md.txt")


def write_page(page: Path, rows: Mapping[str, Sequence[Row]], folder: Path) -> None:
    """Write the page from `rows` by module and from what is in `folder`; `growth.png` goes beside the page."""
    from benchmarks.bench import format_rows

    everything = [row for module in rows.values() for row in module]
    goals = [row.met for row in everything if row.met is not None]
    machines = sorted({json.loads(path.read_text())["machine"] for path in folder.glob("*.json") if path.stem in rows})
    text = TEMPLATE.read_text().format(
        machine="; ".join(machines),
        rows=format_rows(everything),
        met=sum(goals),
        goals=len(goals),
        notes="\n".join(f"- {row.name}, {row.peer}: {row.note}" for row in everything if row.note),
        growth=_describe_growth(page, folder / "growth.json"),
        gpu=_describe_gpu(folder / "gpu.json"),
    )
    page.write_text(re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n")


def _describe_growth(page: Path, measurements: Path) -> str:
    if not measurements.is_file():
        return "Not measured yet: `python -m benchmarks.growth`."
    rows = [Growth(**row) for row in json.loads(measurements.read_text())]
    plot = page.with_name("performance.png")
    plot_growth(rows, plot)
    faults = find_faults(rows)
    result = (
        "\n".join(f"- {fault}" for fault in faults)
        if faults
        else "The time is linear in every stage, and the memory flat but for the latents and embeddings."
    )
    image = f"![processor time and peak memory of each stage by the number of images]({plot.name})"
    return f"{image}\n\n{format_growth(rows)}\n\n{result}"


def _describe_gpu(measurements: Path) -> str:
    if not measurements.is_file():
        return "Not measured yet: `python -m benchmarks.gpu --out benchmarks/measured` on a machine with a GPU."
    lines = [
        "| backbone | stage | batch | code | ms a step | images/s | MFU | peak GB | of it weights, gradients, moments "
        "| hand1000 is faster by |",
        "| --- " * 10 + "|",
    ]
    for row in json.loads(measurements.read_text()):
        milliseconds = [1000 * seconds for seconds in row["seconds"]]
        cells = (
            row["backbone"],
            row["stage"],
            row["batch"],
            row["code"],
            f"{statistics.median(milliseconds):.0f} ({min(milliseconds):.0f} to {max(milliseconds):.0f})",
            f"{row['images_per_second']:.1f}",
            f"{100 * row['mfu']:.1f} %",
            f"{row['peak_bytes'] / 1e9:.1f}" if row["peak_bytes"] else "-",
            f"{row['state_bytes'] / 1e9:.1f}" if row["state_bytes"] else "-",
            f"{row['speedup']:.2f}x",
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    note = measurements.with_suffix(".txt")  # What the measurement cannot say by itself.
    return "\n".join(lines) + (f"\n\n{note.read_text().strip()}" if note.is_file() else "")
