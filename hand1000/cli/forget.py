"""The command `hand1000 data forget`, which removes people and images from an artifact root and its MLflow."""

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hand1000.cli.gc import connect_registry, format_size
from hand1000.core.errors import Hand1000Error

if TYPE_CHECKING:
    from hand1000.registry.connection import Tracking
    from hand1000.registry.forget import ForgetPlan


def add_forget_command(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `forget` to the actions of `hand1000 data`."""
    forget = actions.add_parser(
        "forget",
        help="remove a person's images from everything below an artifact root",
        description="Remove people and images from the datasets below an artifact root, with everything that was made "
        "from them, and list the models that were trained on them. The next retraining leaves them out. Without "
        "--user-id, --file and --image, the people of the exclusion list are removed again.",
    )
    forget.add_argument("--user-id", action="append", default=[], metavar="ID", help="a person's user_id; repeatable")
    forget.add_argument("--file", type=Path, metavar="FILE", help="more of them, one user_id per line")
    forget.add_argument(
        "--image", action="append", default=[], metavar="NAME", help="an image by NAME or GESTURE/NAME; repeatable"
    )
    forget.add_argument("--root", default="artifacts", metavar="DIR|s3://", help="artifact root (default: artifacts)")
    forget.add_argument(
        "--registry",
        metavar="ADDRESS",
        help="MLflow of the root's models: a folder with mlflow.db, or http(s)://... (default: MLFLOW_TRACKING_URI, "
        "else the root's own)",
    )
    forget.add_argument("--dry-run", action="store_true", help="print what would be removed, and remove nothing")
    forget.set_defaults(run=_forget)


def _forget(options: argparse.Namespace) -> None:
    from hand1000.data.excluded_images import parse_image_id
    from hand1000.registry.forget import carry_out_forget, make_forget_plan
    from hand1000.registry.recorder import send_waiting
    from hand1000.registry.unsent import Outbox
    from hand1000.storage.artifacts import open_store
    from hand1000.storage.exclusions import add_exclusions, read_exclusions

    people = [*options.user_id, *(_read_ids(options.file) if options.file else [])]
    images = [parse_image_id(name) for name in options.image]
    store = open_store(options.root)
    tracking = _find_registry(options.registry, store.root)
    exclusions = read_exclusions(store.backend).extended(people, images)
    if not exclusions:
        raise Hand1000Error(f"{store.root}: its exclusion list is empty; name a person with --user-id")
    if not options.dry_run:
        # First, so that no later dataset brings them back, whatever ends this command.
        add_exclusions(store.backend, people, images)
        if tracking:
            # MLflow would otherwise not know of the artifacts and images of a run that has recorded them on disk only.
            send_waiting(Outbox(store.backend), tracking)
    plan = make_forget_plan(store, tracking, exclusions, now=time.time())
    print("\n".join(describe_plan(plan)))
    if options.dry_run:
        print("nothing removed (--dry-run)")
        return
    carry_out_forget(plan, store, tracking, people, images, print)
    count = len(plan.holders) + len(plan.derived)
    print(f"removed {count} artifacts; the next retraining leaves out whom the exclusion list holds")


def _read_ids(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise Hand1000Error(f"{path}: cannot be read: {error}; give a text file with one user_id per line") from error


def _find_registry(registry: str | None, root: str) -> "Tracking | None":
    """Return the connection, or None for a root without an MLflow, such as one with published datasets only."""
    from hand1000.registry.connection import SERVER_VARIABLE

    has_none = "://" not in root and Path(root).is_dir() and not (Path(root) / "mlflow.db").exists()
    if registry is None and not os.environ.get(SERVER_VARIABLE, "").strip() and has_none:
        return None
    return connect_registry(registry, root)


def describe_plan(plan: "ForgetPlan") -> Sequence[str]:
    """Return what goes, by kind, the models that stay, and what cannot be reached."""
    lines = [f"images of them: {plan.num_images} in {len(plan.holders)} artifacts"]
    for title, pieces in (
        ("hold them", plan.holders),
        ("made from them", plan.derived),
        ("unfinished work", plan.checkpoints),
    ):
        if pieces:
            lines.append(f"{title}, {format_size(sum(piece.size for piece in pieces))}:")
            lines += [f"  {piece.key}" for piece in pieces]
    lines += [f"  {piece.key}: {images.unreadable}" for piece, images in plan.holders.items() if images.unreadable]
    if plan.cache_keys:
        lines.append(f"entries of the caches: up to {len(plan.cache_keys)}")
    if plan.runs:
        lines.append(f"files of MLflow runs that may show them: {', '.join(run.info.run_id for run in plan.runs)}")
    if plan.models:
        lines.append("models that were trained on them, which stay:")
        for model in plan.models:
            lines.append(f"  {model.name}: {model.state} ({format_size(model.size)})")
            lines += [f"    retrain: {model.command}"] if model.command else []
    return [*lines, "not reached:", *(f"  {line}" for line in plan.unreachable)]
