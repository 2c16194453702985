"""A finished training run, as report, model card and registry read it from its artifacts."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hand1000.captions.records import CaptionRecord, read_caption_records
from hand1000.config.settings import Settings
from hand1000.data.captioning import read_captioned_split
from hand1000.data.imageset import ImageRecord, read_image_set
from hand1000.data.prepare import REPORT, PreparationReport
from hand1000.evaluation.base_vs_tuned import compare_metrics
from hand1000.evaluation.drift import Drift
from hand1000.evaluation.gate_report import GateReport
from hand1000.evaluation.metrics import Metrics
from hand1000.evaluation.paired_metrics import BASE, CHAMPION, TUNED, PairedMetrics
from hand1000.export.measured import EXPORT_METRICS, ExportMetrics
from hand1000.storage.files import read_json


@dataclass(frozen=True)
class FinishedRun:
    """The inputs of a training run and the local folders of its artifacts.

    `base_identity` is the revision or digest of the base model, `data_digest` that of the prepared dataset. `champion`
    is the address of the version that the model was compared with, "" for none. `general_images` has an image set of
    prompts without the gesture for each model: `base`, `tuned` and perhaps `champion`. `drift_note` says why there is
    no `drift`.
    """

    gestures: tuple[str, ...]
    base_model: str
    base_identity: str
    data_digest: str
    run_key: str
    settings: Settings
    dataset: Path
    captions: Sequence[Path]
    feature: Path
    fusion: Path
    embeddings: Sequence[Path]
    trained: Path
    model: Path
    base_images: Path
    tuned_images: Path
    evaluation: Path
    gates: GateReport
    champion: str = ""
    champion_images: Path | None = None
    general_images: Path | None = None
    drift: Drift | None = None
    drift_note: str = ""

    @cached_property
    def metrics(self) -> tuple[Metrics, Metrics]:
        """Metrics of the base model and of the fine-tuned model."""
        base, tuned = (
            Metrics.model_validate(read_json(self.evaluation / f"{name}.json")) for name in ("base", "tuned")
        )
        return base, tuned

    @cached_property
    def champion_metrics(self) -> Metrics | None:
        """Metrics of the champion; None without one."""
        path = self.evaluation / "champion.json"
        return Metrics.model_validate(read_json(path)) if path.is_file() else None

    @cached_property
    def paired_metrics(self) -> PairedMetrics:
        """The metrics of all models on the same prompts and seeds, with intervals of their differences."""
        return PairedMetrics.model_validate(read_json(self.evaluation / "paired.json"))

    @cached_property
    def export_metrics(self) -> ExportMetrics:
        """What an export loses, or why that was not measured."""
        return ExportMetrics.model_validate(read_json(self.evaluation / EXPORT_METRICS))

    @property
    def preparation(self) -> PreparationReport:
        """The report of the data preparation."""
        return PreparationReport.model_validate(read_json(self.dataset / REPORT))

    @cached_property
    def caption_records(self) -> dict[str, CaptionRecord]:
        """The captions of the training images by file name, with how they came about."""
        return read_caption_records(folder / "train.jsonl" for folder in self.captions)

    @cached_property
    def training_records(self) -> list[ImageRecord]:
        """The training images with their captions."""
        return read_captioned_split(self.dataset, "train", self.captions)

    @property
    def example_prompt(self) -> str:
        """The first test prompt."""
        return read_image_set(self.tuned_images)[0].text

    @property
    def gesture_accuracies(self) -> dict[str, dict[str, float | None]]:
        """Accuracy of each gesture with the base model (`base`) and with the fine-tuned model (`tuned`)."""
        base, tuned = (metrics.by_gesture for metrics in self.metrics)
        return {
            gesture: {"base": base[gesture].gesture_accuracy, "tuned": tuned[gesture].gesture_accuracy}
            for gesture in tuned
        }

    @property
    def tracked_metrics(self) -> dict[str, float | None]:
        """The metrics of each model as MLflow logs them, such as `base/FID` and `tuned/gesture accuracy/four`.

        Those of `export/` are of fewer images.
        """
        base, tuned = self.metrics
        models = {BASE: base, TUNED: tuned} | ({CHAMPION: self.champion_metrics} if self.champion_metrics else {})
        tracked = {
            f"{name}/{row.name}": row.tuned for name, model in models.items() for row in compare_metrics(base, model)
        }
        for metric in self.paired_metrics.metrics:
            gesture = f"/{metric.gesture}" if metric.gesture else ""
            for name, estimate in metric.models.items():
                tracked.setdefault(f"{name}/{metric.name}{gesture}", estimate.value)
        for row in self.export_metrics.metrics:
            tracked[f"export/{row.name}/{row.gesture}" if row.gesture else f"export/{row.name}"] = row.export
        return tracked

    @property
    def candidate_metrics(self) -> dict[str, float | None]:
        """The metrics of the fine-tuned model, which become tags of its registered version."""
        prefix = f"{TUNED}/"
        metrics = self.tracked_metrics.items()
        return {name.removeprefix(prefix): value for name, value in metrics if name.startswith(prefix)}
