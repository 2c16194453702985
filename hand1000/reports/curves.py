"""The curves of a training: losses, learning rate and gradient norm over the steps."""

from collections.abc import Sequence
from pathlib import Path

from hand1000.reports.figures import Curve
from hand1000.reports.run import FinishedRun
from hand1000.storage.files import read_jsonl
from hand1000.training.lr import get_lr


def read_curves(run: FinishedRun) -> list[Curve]:
    """The logged curves of Stages II and III, and the learning rate of Stage III."""
    stage3 = run.settings.stage3
    learning_rates = [(step + 1.0, get_lr(step, stage3, stage3.lr_scheduler)) for step in range(stage3.steps)]
    curves = [
        _read_curve("Stage II: fusion", [run.fusion]),
        _read_curve("Stage II: embeddings, loss of the last step", run.embeddings),
        _read_curve("Stage III: UNet", [run.trained]),
        _read_curve("Stage III: validation images", [run.trained], "validation_loss"),
        _read_curve("Stage III: norm of the gradient before clipping", [run.trained], "grad_norm", "norm"),
        Curve("Stage III: learning rate", learning_rates, "learning rate"),
    ]
    return [curve for curve in curves if curve.points]


def _read_curve(title: str, folders: Sequence[Path], value: str = "loss", y_label: str = "loss") -> Curve:
    rows = [row for folder in folders for _, row in read_jsonl(folder / "history.jsonl")]
    points = sorted((int(row["step"]), float(row[value])) for row in rows if value in row)
    return Curve(title, points, y_label)
