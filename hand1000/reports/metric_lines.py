"""The metrics of base, champion and candidate with their intervals, and what they allow a reader to conclude."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from hand1000.core.tables import format_number
from hand1000.evaluation.metrics import Metrics
from hand1000.evaluation.paired import Estimate
from hand1000.evaluation.paired_metrics import BASE, CHAMPION, TUNED, PairedMetric
from hand1000.reports.run import FinishedRun

CANDIDATE = "candidate"
MODELS = {BASE: "base", CHAMPION: "champion", TUNED: CANDIDATE}
"""What the page calls the models, by their names in an evaluation."""

MIN_SAMPLES = 20
"""Number of images or hands per model below which no difference is called better or worse."""

_ORDER = (
    *("gesture accuracy", "detection rate", "implausible hand rate", "KID-H", "FID-H", "HAND-CONF"),
    *("color faithfulness", "color of the wall", "color of the skin", "color of the sleeve", "CLIP score"),
    *("KID", "FID", "CMMD", "memorization rate", "diversity", "intra-prompt distance"),
)
"""Names of metrics in the order of the page; all others follow."""

_HAND_METRICS = ("implausible hand rate", "KID-H", "FID-H", "HAND-CONF")
_NEW_IMAGE_SHARE = 0.05  # By the definition of the memorization rate.


@dataclass(frozen=True)
class Point:
    """A model's value with the bounds of its 95 % interval, None without one; `n` counts its images or hands."""

    value: float
    low: float | None
    high: float | None
    n: int

    @property
    def has_interval(self) -> bool:
        """Whether the interval says anything: that of a single pair of images has no width."""
        return self.low is not None and self.high is not None and self.low < self.high

    @property
    def text(self) -> str:
        """The interval in words; empty without one."""
        return f"{format_number(self.low)} to {format_number(self.high)}" if self.has_interval else ""


@dataclass(frozen=True)
class Conclusion:
    """What a metric says about the candidate; only `better` and `worse` are more than chance.

    The interval of the paired difference decides, as in the gates (`Estimate.is_loss`).
    """

    kind: Literal["better", "worse", "unclear", "none"]
    text: str


@dataclass(frozen=True)
class MetricLine:
    """One metric of all models.

    Attributes:
        name: Name of the metric, with the gesture if it is that of one of several.
        better: Whether lower or higher is better; None if neither is.
        points: Value by model, in the order of the page.
        reference: A value to compare with, such as that of real images, and what it is.
        difference: Candidate minus champion, or minus base model without a champion, on the same prompts and seeds.
        p_value: McNemar's p-value of the difference of two rates.
        null: What a distance to the base model would be if the candidate were equal to it.
        is_share: Whether the values are shares, which the plot shows from 0 to 1.
        note: Why a value is missing.
        undecided: Why the values allow no conclusion; the page grays them.
    """

    name: str
    better: Literal["lower", "higher"] | None
    points: Mapping[str, Point]
    reference: tuple[float, str] | None = None
    difference: Estimate | None = None
    p_value: float | None = None
    null: Estimate | None = None
    is_share: bool = False
    note: str = ""
    undecided: str = ""
    conclusion: Conclusion = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "conclusion", self._conclude())

    @property
    def title(self) -> str:
        """The name with ↓ if lower is better, with ↑ if higher is."""
        return f"{self.name} {'↓' if self.better == 'lower' else '↑' if self.better else ''}".rstrip()

    @property
    def n(self) -> str:
        """The number of images or hands of each model, or a single number if they are equal."""
        counts = [str(point.n) for point in self.points.values()]
        return " / ".join(counts) if len(set(counts)) > 1 else "".join(counts[:1])

    def _conclude(self) -> Conclusion:
        candidate = self.points.get(CANDIDATE)
        other = self.points.get("champion") or self.points.get("base")
        if candidate and not other and self.null and candidate.n >= MIN_SAMPLES:
            return self._compare_with_null(candidate, self.null)
        if candidate is None or other is None or other is candidate or self.better is None:
            return Conclusion("none", self.undecided or self.note)
        if self.undecided:
            return Conclusion("none", self.undecided)
        if min(candidate.n, other.n) < MIN_SAMPLES:
            return Conclusion("none", f"too few to tell (n = {min(candidate.n, other.n)})")
        if self.difference is None:
            return Conclusion("none", self.note or "no interval")
        if self.difference.is_gain(self.better):
            return Conclusion("better", "better")
        if self.difference.is_loss(self.better):
            return Conclusion("worse", "worse")
        return Conclusion("unclear", "no clear difference")

    @staticmethod
    def _compare_with_null(candidate: Point, null: Estimate) -> Conclusion:
        if candidate.value > null.high:
            return Conclusion("worse", "unlike the base model")
        return Conclusion("unclear", "no clear difference")


def read_metric_lines(run: FinishedRun) -> list[MetricLine]:
    """The metrics of a finished run in the order of the page: hands, images, faithfulness, prompts without gesture."""
    metrics = {BASE: run.metrics[0], CHAMPION: run.champion_metrics, TUNED: run.metrics[1]}
    models = {MODELS[name]: values for name, values in metrics.items() if values is not None}
    paired: dict[str, list[MetricLine]] = {metric.name: [] for metric in run.paired_metrics.metrics}
    for metric in run.paired_metrics.metrics:
        paired[metric.name].append(_paired_line(metric, models))
    for line in _unpaired_lines(models):
        paired.setdefault(line.name, []).append(line)
    first = [name for name in _ORDER if name in paired]
    return [line for name in [*first, *(name for name in paired if name not in first)] for line in paired[name]]


def _paired_line(metric: PairedMetric, models: Mapping[str, Metrics]) -> MetricLine:
    points = {
        MODELS[name]: Point(estimate.value, estimate.low, estimate.high, _count(metric, models[MODELS[name]]))
        for name, estimate in sorted(metric.models.items(), key=lambda item: list(MODELS).index(item[0]))
    }
    other = CHAMPION if CHAMPION in metric.models else BASE
    return MetricLine(
        name=f"{metric.name}, {metric.gesture}" if metric.gesture else metric.name,
        better=metric.better,
        points=points,
        reference=_reference(metric, models[CANDIDATE]),
        difference=metric.differences.get(other),
        p_value=metric.p_values.get(other),
        null=metric.null,
        is_share="KID" not in metric.name and metric.name != "diversity",
        note=metric.note,
        undecided=metric.undecided,
    )


def _count(metric: PairedMetric, metrics: Metrics) -> int:
    """The number of images or, in a metric of hands, of hands."""
    if metric.name not in _HAND_METRICS:
        return metric.n
    results = [row for row in metrics.images if metric.gesture in (None, row.target_gesture)]
    return sum(row.num_hands for row in results)


def _reference(metric: PairedMetric, metrics: Metrics) -> tuple[float, str] | None:
    if metric.null is not None:
        return metric.null.high, "equal models, at most"
    if metric.name == "memorization rate":
        return _NEW_IMAGE_SHARE, "unseen real images"
    real = metrics.by_gesture[metric.gesture] if metric.gesture else metrics
    fields = {"gesture accuracy": "real_gesture_accuracy", "detection rate": "real_detection_rate"}
    value = getattr(real, fields[metric.name]) if metric.name in fields else None
    if metric.name == "color faithfulness" and metrics.real_color_faithfulness:
        shares = metrics.real_color_faithfulness.values()
        value = sum(shares) / len(shares)
    return None if value is None else (value, "real images")


def _unpaired_lines(models: Mapping[str, Metrics]) -> Iterator[MetricLine]:
    """Metrics of single models, without an interval of the difference."""

    def line(name: str, attribute: str, better: Literal["lower", "higher"], count: str = "n_fake") -> MetricLine:
        points = {}
        for model, metrics in models.items():
            if (value := getattr(metrics, attribute)) is not None:
                points[model] = Point(value, None, None, getattr(metrics, count))
        return MetricLine(name, better, points)

    yield line("FID-H", "fid_h", "lower", "hands_fake")
    yield line("HAND-CONF", "hand_conf", "higher", "hands_fake")
    yield line("FID", "fid", "lower")
    for name, attribute in (("CMMD", "cmmd"), ("CLIP score", "clip_score")):
        if any(getattr(metrics, attribute) is not None for metrics in models.values()):
            yield line(name, attribute, "lower" if name == "CMMD" else "higher")
    for place in models[CANDIDATE].color_faithfulness:
        shares = {
            model: Point(metrics.color_faithfulness[place], None, None, metrics.n_fake)
            for model, metrics in models.items()
            if place in metrics.color_faithfulness
        }
        real = models[CANDIDATE].real_color_faithfulness.get(place)
        reference = None if real is None else (real, "real images")
        yield MetricLine(f"color of the {place}", "higher", shares, reference, is_share=True)
    distances = {
        model: Point(metrics.intra_prompt_distance, None, None, metrics.n_fake)
        for model, metrics in models.items()
        if metrics.intra_prompt_distance is not None
    }
    if distances:
        yield MetricLine("intra-prompt distance", None, distances)
