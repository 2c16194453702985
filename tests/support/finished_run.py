"""A finished run with made-up results, as the report and the model card read it from its artifacts."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hand1000.captions.records import CaptionRecord, write_caption_records
from hand1000.config.settings import load_settings
from hand1000.data.imageset import ImageRecord, write_metadata
from hand1000.evaluation.gates import evaluate_gates
from hand1000.evaluation.general import GeneralImage, GeneralMetrics
from hand1000.evaluation.image_results import ImageResult
from hand1000.evaluation.metrics import GestureMetrics, Metrics
from hand1000.evaluation.paired import Estimate, estimate_rate, estimate_rate_difference
from hand1000.evaluation.paired_metrics import PairedMetric, PairedMetrics
from hand1000.export.measured import EXPORT_METRICS, ExportMetric, ExportMetrics
from hand1000.hands.stage1 import GestureFeature, save_features
from hand1000.registry.review import review_commands
from hand1000.reports.run import FinishedRun
from hand1000.reports.training import ReportedCandidate
from hand1000.storage.files import write_json
from tests.support.tiny_models import save_tiny_base

HAND = tuple((0.5 + 0.3 * math.cos(i), 0.5 + 0.3 * math.sin(i)) for i in range(21))
URI, CHAMPION_URI = "models:/hand1000-call-candidates/3", "models:/hand1000-call/2"
COLORS = {"base": (200, 60, 60), "champion": (60, 160, 60), "tuned": (60, 60, 200)}
NUM_TRAINING = 4

EXPORTED = ExportMetrics(
    mu=0.7,
    metrics=(
        ExportMetric(
            name="gesture accuracy", gesture=None, better="higher", n=48, model=0.625, export=0.4375,
            difference=-0.1875, low=-0.31, high=-0.05,
        ),
        ExportMetric(
            name="KID-H", gesture=None, better="lower", n=48, model=0.8, export=1.6, difference=None, low=None,
            high=None,
        ),
    ),
)  # fmt: skip
"""What an export of the run's model was measured to lose."""

Texts = Callable[[int], str]


def describe(index: int) -> str:
    """The prompt of the image with this index."""
    return f"person {index} making phone call hand gesture"


def candidate(**fields: Any) -> ReportedCandidate:
    """A registered candidate with its commands."""
    values: dict[str, Any] = {
        "uri": URI,
        "commands": review_commands(URI, 2),
        "registry": "",
        "seconds": {"train_fusion": 12.34, "train_unet": 3700.0, "register": 0.0},
        "peaks": {"train_unet": 7.25},
    }
    return ReportedCandidate(**values | fields)


def image_result(index: int, model: str) -> ImageResult:
    """What was found in an image: without a hand in every fifth, a wrong gesture in every fourth of the candidate's."""
    name = f"{index:06d}.png"
    share = {"base": 10, "champion": 2, "tuned": 4}[model]
    if index % 5 == 0:
        return ImageResult(
            file_name=name, target_gesture="call", num_hands=0, handedness_score=None, predicted_gesture=None,
            target_probability=0.0, num_implausible=0, memorized=False, nearest_train=index % NUM_TRAINING,
            nearest_distance=5.0 + index, wrong_colors=("skin",),
        )  # fmt: skip
    wrong = model == "base" or index % share == 0
    probability = 0.01 * (index % 40) if wrong else 0.5 + 0.01 * (index % 40)
    return ImageResult(
        file_name=name, target_gesture="call", num_hands=1, handedness_score=0.9,
        predicted_gesture="palm" if wrong else "call", target_probability=probability,
        predicted_probability=1 - probability if wrong else probability, landmarks=(HAND,),
        num_implausible=int(index % 7 == 1), memorized=index % 11 == 1, nearest_train=index % NUM_TRAINING,
        nearest_distance=5.0 + index, wrong_colors=("wall",) if index % 6 == 1 else (),
    )  # fmt: skip


def make_metrics(results: Sequence[ImageResult], kid: float) -> Metrics:
    """The metrics of images with these results."""
    hands = [result for result in results if result.num_hands]
    accuracy = sum(result.shows_target for result in results) / len(results)
    rates = {
        "detection_rate": len(hands) / len(results), "gesture_accuracy": accuracy, "real_detection_rate": 1.0,
        "real_gesture_accuracy": 0.95,
    }  # fmt: skip
    distance = {"value": kid, "low": kid - 0.1, "high": kid + 0.1}
    return Metrics(
        gesture="call", n_real=30, n_fake=len(results), hands_real=30, hands_fake=len(hands), fid=100 * kid,
        kid=distance, cmmd=None, fid_h=120 * kid, kid_h=distance if hands else None, hand_conf=0.9, **rates,
        palm_score=0.9, hand_presence=0.9, implausible_hand_rate=0.1, clip_score=None,
        color_faithfulness={"wall": 0.9}, real_color_faithfulness={"wall": 0.97}, intra_prompt_distance=None,
        memorization_rate=0.1, by_gesture={"call": GestureMetrics(n_real=30, n_fake=len(results), **rates)},
        extractor="small", extractor_sha256="0" * 64, resizer="bicubic", classifier_sha256="0" * 64,
        min_detection_confidence=0.5, notes=(), images=tuple(results),
    )  # fmt: skip


def make_general(num_images: int, model: str) -> GeneralMetrics:
    """The metrics of prompts that name `palm` and `ok` in turn: the base model shows them, the candidate `call`."""
    images = []
    for index in range(num_images):
        named = ("palm", "ok")[index % 2]
        found = {"base": named, "champion": ("palm", "call")[index % 2], "tuned": "call"}[model]
        images.append(
            GeneralImage(
                file_name=f"{index:06d}.png", num_hands=1, named_colors=(), wrong_colors=(), named_gesture=named,
                found_gestures=(found,), leaks=found == "call",
            )
        )  # fmt: skip
    leak_rate = sum(image.leaks for image in images) / num_images
    accuracy = sum(image.shows_named for image in images) / num_images
    return GeneralMetrics(
        n=num_images, detection_rate=1.0, color_faithfulness={}, clip_score=None, leak_rate=leak_rate,
        gesture_accuracy=accuracy, images=tuple(images),
    )  # fmt: skip


def make_paired(models: dict[str, Metrics]) -> PairedMetrics:
    """Two rates, and KID-H."""
    shown = {name: np.array([row.shows_target for row in metrics.images]) for name, metrics in models.items()}
    found = {name: np.array([row.num_hands > 0 for row in metrics.images]) for name, metrics in models.items()}
    others = [name for name in models if name != "tuned"]
    n = len(shown["tuned"])
    rows = [
        PairedMetric(
            name=name, gesture=None, better="higher", n=n,
            models={model: estimate_rate(values) for model, values in successes.items()},
            differences={model: estimate_rate_difference(successes["tuned"], successes[model]) for model in others},
        )
        for name, successes in (("gesture accuracy", shown), ("detection rate", found))
    ]  # fmt: skip
    kid = {model: Estimate(**metrics.kid.model_dump()) for model, metrics in models.items()}
    rows.append(PairedMetric(name="KID-H", gesture=None, better="lower", n=n, models=kid, differences={}))
    return PairedMetrics(metrics=tuple(rows))


def make_run(
    folder: Path, *, num_images: int = 60, champion: bool = True, side: int = 32, texts: Texts = describe, **fields: Any
) -> FinishedRun:
    """Write the artifacts of a run to `folder`.

    Args:
        folder: New or empty folder.
        num_images: Number of test prompts.
        champion: Whether there is a champion.
        side: Side of the images in pixels.
        texts: Prompt or caption of the image with an index.
        **fields: Fields of `FinishedRun` in place of the made-up ones.
    """
    names = ["base", *(["champion"] if champion else []), "tuned"]
    records = [image_record(index, texts) for index in range(num_images)]
    models = {}
    for kid, name in enumerate(names):
        write_images(folder / name, records, COLORS[name], side)
        write_images(folder / "general" / name, records[:6], COLORS[name], side)
        models[name] = make_metrics([image_result(index, name) for index in range(num_images)], 2.0 - 0.6 * kid)
        write_json(folder / "evaluation" / f"{name}.json", models[name])
        write_json(folder / "evaluation" / f"other_{name}.json", make_general(8, name))
    paired = make_paired(models)
    write_json(folder / "evaluation" / "paired.json", paired)
    write_json(folder / "evaluation" / EXPORT_METRICS, EXPORTED)
    training = [image_record(index, texts) for index in range(NUM_TRAINING)]
    write_images(folder / "dataset" / "train", training, (120, 120, 120), side)
    preparation = {
        "train": NUM_TRAINING, "test": 30, "unusable": [{"file": texts(0), "reason": "truncated"}], "warnings": [],
        "filter_counts": {"small hand": 3},
    }  # fmt: skip
    write_json(folder / "dataset" / "preparation.json", preparation)
    captions = [
        CaptionRecord(
            file_name=record.file_name, caption="a person", captioner="blip2", text=record.text, writer="rule"
        )
        for record in training
    ]
    (folder / "captions").mkdir()
    write_caption_records(folder / "captions" / "train.jsonl", captions)
    landmarks = np.array([(*point, 0.0) for point in HAND], np.float32).reshape(63)
    feature = GestureFeature(landmarks, landmarks, "call", "normalized", NUM_TRAINING, NUM_TRAINING, ())
    (folder / "feature").mkdir()
    save_features(folder / "feature", [feature])
    for stage, losses in (("fusion", 40), ("embeddings", 10), ("trained", 200)):
        (folder / stage).mkdir()
        rows = [{"step": step + 1, "loss": 1 / (step + 1), "grad_norm": 0.5} for step in range(losses)]
        (folder / stage / "history.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    settings = load_settings("demo")
    values: dict[str, Any] = {
        "gestures": ("call",), "base_model": "models/small-base", "base_identity": "abc", "data_digest": "d" * 64,
        "run_key": "call-1", "settings": settings, "dataset": folder / "dataset", "captions": [folder / "captions"],
        "feature": folder / "feature", "fusion": folder / "fusion", "embeddings": [folder / "embeddings"],
        "trained": folder / "trained", "model": save_tiny_base(folder / "model"), "base_images": folder / "base",
        "tuned_images": folder / "tuned", "evaluation": folder / "evaluation",
        "gates": evaluate_gates(paired, settings.gates, CHAMPION_URI if champion else ""),
        "champion": CHAMPION_URI if champion else "", "champion_images": folder / "champion" if champion else None,
        "general_images": folder / "general",
    }  # fmt: skip
    return FinishedRun(**values | fields)


def image_record(index: int, texts: Texts) -> ImageRecord:
    """The record of an image."""
    return ImageRecord(
        file_name=f"{index:06d}.png", text=texts(index), gesture="call", user_id="u", source="0" * 64, seed=1000 + index
    )


def write_images(folder: Path, records: Sequence[ImageRecord], color: tuple[int, int, int], side: int) -> None:
    """Write an image set of one color; each image has a shade of its own."""
    folder.mkdir(parents=True)
    for index, record in enumerate(records):
        noise = np.random.default_rng(index).integers(-30, 30, (side, side, 3))
        pixels = np.clip(np.array(color) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / record.file_name)
    write_metadata(folder, records)
