"""Artifact roots and registries with the traces of whole runs, made without training."""

import hashlib
import json
from pathlib import Path

from hand1000.registry.connection import Tracking
from hand1000.registry.register import register_candidate
from hand1000.registry.tracking import RunTracker
from hand1000.registry.versions import DATASET, FEATURE, RegisteredVersion
from hand1000.storage.artifacts import ArtifactStore
from tests.support.reviews import SAMPLER

KINDS = ("prepare_data", "compute_gesture_feature", "encode_dataset", "train_unet", "assemble_model", "register")
"""Kinds of the artifacts of a run, in their order."""


def publish(store: ArtifactStore, folder: Path, kind: str, content: str) -> str:
    """Publish an artifact of a task with one file, and its result."""
    (folder / "out").mkdir(parents=True)
    (folder / "out" / "data.txt").write_text(content)
    address = store.publish(kind, folder / "out")
    store.put_result(kind, hashlib.sha256(content.encode()).hexdigest(), {"address": address, "seconds": 1.0})
    return address


def save_model(folder: Path, content: str) -> Path:
    """Write a folder that can be registered as a model, but not loaded."""
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps(SAMPLER))
    (folder / "unet.bin").write_text(content)
    return folder


def record_run(
    store: ArtifactStore, tracking: Tracking, folder: Path, name: str, model: Path | None = None, data: str = ""
) -> RegisteredVersion:
    """Leave what a run of `train_gesture` leaves: artifacts, MLflow runs, a candidate."""
    tracker = RunTracker("hand1000", name, tracking)
    addresses = {}
    for kind in KINDS:
        content = data if kind in ("prepare_data", "compute_gesture_feature") and data else f"{name} {kind}"
        addresses[kind] = publish(store, folder / name / kind, kind, content)
        child = tracker.child_run(kind)
        child.set_tags({"hand1000.artifact.all": addresses[kind]})
        child.finish()
    digests = {kind: address.rpartition("/")[2] for kind, address in addresses.items()}
    version = register_candidate(
        tracker,
        model or save_model(folder / name / "model", name),
        gestures=("four",),
        metrics={"KID": 0.1},
        card=f"# {name}",
        tags={
            DATASET: digests["prepare_data"],
            FEATURE: digests["compute_gesture_feature"],
            "hand1000.verdict": "passed",
        },
    )
    tracker.finish()
    return version
