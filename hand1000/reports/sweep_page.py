"""The page of a set of sweeps."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from hand1000.config.sweep import Sweep
from hand1000.evaluation.metrics import Metrics
from hand1000.reports.html import image, page, section
from hand1000.reports.sweep import plot_sweep, sweep_table
from hand1000.storage.files import write_text


def write_sweeps(
    folder: Path, gesture: str, sweeps: Mapping[str, Sweep], measured: Mapping[str, Sequence[Metrics]], base: Metrics
) -> None:
    """Write for each sweep `<name>.md`, its table, and `<name>.png`, its plot; and all of them as `sweeps.html`.

    Args:
        folder: an existing one.
        gesture: that all runs were trained on.
        sweeps: by name.
        measured: the runs of each, in the order of its points.
        base: of the base model, the same for all.
    """
    sections = [f"<header><h1>{escape(gesture)}</h1></header>"]
    for name, sweep in sweeps.items():
        table = sweep_table(sweep, measured[name], base)
        write_text(folder / f"{name}.md", table)
        plot_sweep(folder / f"{name}.png", sweep, measured[name])
        sections.append(section(sweep.title, f"{image(folder / f'{name}.png', sweep.title)}<pre>{escape(table)}</pre>"))
    write_text(folder / "sweeps.html", page(f"Hand1000: sweeps, {gesture}", sections))
