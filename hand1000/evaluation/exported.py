"""Comparison of a model with its export, plain Stable Diffusion, which has no autoguidance."""

from collections.abc import Callable

from hand1000.core.errors import Hand1000Error
from hand1000.evaluation.features import ImageFeatures
from hand1000.evaluation.metrics import Metrics
from hand1000.evaluation.paired_metrics import TUNED, EvaluatedImages, PairedMetric, compare_hands
from hand1000.export.measured import ExportMetric

EXPORT = "export"


def compare_export(
    real: ImageFeatures,
    tuned: ImageFeatures,
    export: ImageFeatures,
    compute: Callable[[ImageFeatures], Metrics],
    seed: int,
) -> tuple[ExportMetric, ...]:
    """Compare the export's images with the model's of the same prompts and seeds: gesture, detection, KID-H, anatomy.

    Args:
        real: Features of the real images.
        tuned: Features of all images of the model.
        export: Features of the export's images, which have the prompts and seeds of the first images of `tuned`.
        compute: Computes the metrics of generated images compared with the real ones.
        seed: Random seed of the bootstrap.

    Raises:
        Hand1000Error: The images are not those of the first prompts.
    """
    first = tuned.first(len(export.file_names))
    if (first.file_names, first.prompts) != (export.file_names, export.prompts):
        raise Hand1000Error("the export's images have other prompts than the model's; generate both from one plan")
    models = {
        name: EvaluatedImages(features, compute(features)) for name, features in ((TUNED, first), (EXPORT, export))
    }
    return tuple(_describe_loss(metric) for metric in compare_hands(real, models, seed))


def _describe_loss(metric: PairedMetric) -> ExportMetric:
    """The metric with the difference export - model, where a paired metric has tuned - other."""
    model, export, gain = metric.models.get(TUNED), metric.models.get(EXPORT), metric.differences.get(EXPORT)
    return ExportMetric(
        name=metric.name,
        gesture=metric.gesture,
        better=metric.better,
        n=metric.n,
        model=model.value if model else None,
        export=export.value if export else None,
        # Not -x, which would print a zero as -0.
        difference=0.0 - gain.value if gain else None,
        low=0.0 - gain.high if gain else None,
        high=0.0 - gain.low if gain else None,
    )
