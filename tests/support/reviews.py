"""Candidates to decide about, registered as the pipeline does it."""

import json
from pathlib import Path

from hand1000.registry.register import RegisteredVersion, register_candidate
from hand1000.registry.tracking import RunTracker

CARD = "# hand1000-four\n\n| metric | base | tuned |\n| --- | --- | --- |\n| KID-H | 2 | 1 |\n"
SAMPLER = {
    "mu": 0.3,
    "guidance_scale": 3.0,
    "autoguidance_scale": 1.0,
    "autoguidance_interval": [0.0, 1.0],
    "sampler": "ddim",
    "eta": 0.5,
    "num_inference_steps": 3,
}


def register(
    tracking, folder: Path, number: int, *, verdict: str = "passed", champion: str = "", gesture: str = "four"
) -> RegisteredVersion:
    """Register a candidate of a few bytes, which differ from those of other numbers and gestures.

    Args:
        tracking: Connection to MLflow.
        folder: Where the files are written.
        number: Distinguishes the candidates.
        verdict: Verdict of its gates.
        champion: URI of the champion that the gates compared it with.
        gesture: The gesture.
    """
    model = folder / f"candidate-{gesture}-{number}"
    model.mkdir(exist_ok=True)
    (model / "model_index.json").write_text(json.dumps(SAMPLER))
    (model / "number.txt").write_text(f"{gesture} {number}")
    gates = "gesture accuracy 0.7, at least 0.5" if verdict == "passed" else "gesture accuracy 0.1, at least 0.5"
    tags = {"hand1000.verdict": verdict, "hand1000.gates": f"{verdict}: {gates}", "hand1000.champion": champion}
    tracker = RunTracker("reviews", f"{gesture}-{number}", tracking)
    metrics = {"KID-H": 1.0 / number, "gesture accuracy": 0.5 + number / 100}
    return register_candidate(tracker, model, gestures=(gesture,), metrics=metrics, card=CARD, tags=tags)
