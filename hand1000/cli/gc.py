"""The command `hand1000 gc`, which removes what no model in use or in review needs."""

import argparse
import math
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from hand1000.cli.options import number_type
from hand1000.core.errors import Hand1000Error

if TYPE_CHECKING:
    from hand1000.registry.connection import Tracking
    from hand1000.registry.retention import Plan

KEEP_DAYS = 30.0
MAX_KEEP_DAYS = 3650.0
WEIGHTS_ROW = "weights of candidates"
"""Row of the tables that stands for logged models."""

REPORTS_ROW = "review pages and cards of candidates"

_UNITS = ("B", "kB", "MB", "GB", "TB")


def add_gc_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `gc` to the commands of `hand1000`."""
    gc = commands.add_parser(
        "gc",
        help="remove what no model in use or in review needs",
        description="Remove intermediate data and the weights of rejected and superseded candidates. The weights of "
        "champion, previous champion and waiting candidates are kept, with all that reviewing and retraining read.",
    )
    gc.add_argument("--root", default="artifacts", metavar="DIR|s3://", help="artifact root (default: artifacts)")
    gc.add_argument(
        "--registry",
        metavar="ADDRESS",
        help="MLflow of the root's models: a folder with mlflow.db, or http(s)://... (default: MLFLOW_TRACKING_URI, "
        "else the root's own)",
    )
    gc.add_argument(
        "--keep-days",
        type=number_type(0, MAX_KEEP_DAYS),
        default=KEEP_DAYS,
        metavar="N",
        help="keep whatever was written or used in the last N days; 0 only while no workflow runs (default: 30)",
    )
    gc.add_argument(
        "--keep-reports-days",
        type=number_type(0, MAX_KEEP_DAYS),
        default=math.inf,
        metavar="N",
        help="also remove review page, images and card of a candidate N days after it went out of use (default: keep)",
    )
    gc.add_argument("--dry-run", action="store_true", help="print what would be removed, and remove nothing")
    gc.set_defaults(run=_collect)


def _collect(options: argparse.Namespace) -> None:
    from hand1000.core.progress import ProgressBar
    from hand1000.registry.recorder import send_waiting
    from hand1000.registry.retention import carry_out, make_plan
    from hand1000.registry.unsent import Outbox
    from hand1000.storage.artifacts import open_store

    store = open_store(options.root)
    tracking = connect_registry(options.registry, store.root)
    if not options.dry_run:
        # A run that has recorded what it uses on disk only would look as if it used nothing.
        send_waiting(Outbox(store.backend), tracking)
    plan = make_plan(
        store, tracking, keep_days=options.keep_days, now=time.time(), keep_reports_days=options.keep_reports_days
    )
    print("\n".join(_describe_plan(plan)))
    if options.dry_run:
        print("nothing removed (--dry-run)")
        return
    total = len(plan.pieces) + len(plan.weights) + len(plan.reports)
    bar, done = ProgressBar("removed", unit=" items"), 0

    def advance(_: int) -> None:
        nonlocal done
        done += 1
        bar(done, total)

    removal = carry_out(plan, store, tracking, advance)
    sizes = [item.size for items in (removal.pieces, removal.weights, removal.reports) for item in items]
    print(f"removed {len(sizes)} items, {format_size(sum(sizes))}")
    for name in removal.skipped:
        print(f"kept {name}: it came into use meanwhile")


def connect_registry(registry: str | None, root: str) -> "Tracking":
    """Connect to the existing MLflow at `registry`, else to that of the environment, else to that of the root.

    Raises:
        Hand1000Error: There is no such root or MLflow.
    """
    from hand1000.registry.connection import DEFAULT_FOLDER, connect

    if "://" not in root and not Path(root).is_dir():
        raise Hand1000Error(f"{root}: no such folder; name an artifact root with --root")
    return connect(DEFAULT_FOLDER if "://" in root else Path(root), registry=registry, create=False)


def _describe_plan(plan: "Plan") -> list[str]:
    """What goes and what stays, by kind and by reason."""
    removed = [(piece.kind if piece.role != "leftover" else "leftovers", piece.size) for piece in plan.pieces]
    removed += [(WEIGHTS_ROW, weights.size) for weights in plan.weights]
    removed += [(REPORTS_ROW, report.size) for report in plan.reports]
    kept = [(f"{piece.kind}: {reason}", piece.size) for piece, reason in plan.kept_pieces]
    kept += [(f"{weights.name}: {reason}", weights.size) for weights, reason in plan.kept_weights]
    return [*_table("remove", removed), *(f"  {weights.name}" for weights in plan.weights), *_table("keep", kept)]


def _table(title: str, rows: Iterable[tuple[str, int]]) -> list[str]:
    sizes: dict[str, int] = defaultdict(int)
    counts: Counter[str] = Counter()
    for name, size in rows:
        sizes[name] += size
        counts[name] += 1
    lines = [f"{title:8} {sum(counts.values()):>6} items {format_size(sum(sizes.values())):>10}"]
    return lines + [f"  {counts[name]:>6} {format_size(size):>10}  {name}" for name, size in sorted(sizes.items())]


def format_size(size: float) -> str:
    """Return a number of bytes as a person reads it, such as 1.5 MB."""
    for unit in _UNITS[:-1]:
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} {_UNITS[-1]}"
