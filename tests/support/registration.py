"""A run that is recorded in MLflow and registers its model."""

from pathlib import Path

from hand1000.registry.register import register_candidate
from hand1000.registry.tracking import RunTracker
from hand1000.registry.versions import RegisteredVersion

HISTORY = [{"step": step, "loss": 1 / (step + 1), "grad_norm": float(step)} for step in range(600)]
CARD = "# hand1000-call\n\n| measure | base | tuned |\n| --- | --- | --- |\n| KID | 0.2 | 0.1 |\n"


def record_and_register(tracking, model_dir: Path, key: str, gesture: str = "call") -> RegisteredVersion:
    """Record and register what the tasks of a run do; a retry does it again from the start."""
    tracker = RunTracker("hand1000 tests", key, tracking)
    tracker.log_params({"seed": 0, "stage2": {"lambda_": 0.7, "embedding_steps": 10}})
    stage = tracker.child_run("stage3")
    stage.log_history(HISTORY)
    stage.log_seconds("train", 12.5)
    version = register_candidate(
        tracker, model_dir, gestures=(gesture,), metrics={"kid": 0.1, "hand_conf": None}, card=CARD
    )
    stage.finish()
    tracker.finish()
    return version
