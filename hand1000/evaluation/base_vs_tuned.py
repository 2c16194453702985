"""The base model's measures beside those of the tuned one, as plain text and as Markdown."""

from hand1000.core.errors import Hand1000Error
from hand1000.core.tables import aligned_table, markdown_table
from hand1000.evaluation.metric_table import GESTURE_HEADER, GestureRow, MetricRow
from hand1000.evaluation.metrics import Distance, Metrics


def compare_metrics(base: Metrics, tuned: Metrics) -> list[MetricRow]:
    """The measures of both models in the order in which they are read.

    Raises:
        Hand1000Error: they were measured against different real pictures or with different features.
    """
    same = ("gesture", "n_real", "hands_real", "extractor", "extractor_sha256", "resizer", "min_detection_confidence")
    for name in same:
        if getattr(base, name) != getattr(tuned, name):
            values = f"{getattr(base, name)!r} and {getattr(tuned, name)!r}"
            raise Hand1000Error(f"{name}: {values} of the two models can not be compared; measure both the same way")
    pictures, hands = (base.n_fake, tuned.n_fake), (base.hands_fake, tuned.hands_fake)
    return [
        MetricRow("FID", base.fid, tuned.fid, "lower", *pictures, f"against {base.n_real} real pictures"),
        MetricRow("KID", base.kid.value, tuned.kid.value, "lower", *pictures, _intervals(base.kid, tuned.kid)),
        MetricRow("FID-H", base.fid_h, tuned.fid_h, "lower", *hands, f"against {base.hands_real} real hands"),
        MetricRow(
            "KID-H", _value(base.kid_h), _value(tuned.kid_h), "lower", *hands, _intervals(base.kid_h, tuned.kid_h)
        ),
        MetricRow("HAND-CONF", base.hand_conf, tuned.hand_conf, "higher", *hands, "of the hands that were found"),
        MetricRow(
            "detection rate",
            base.detection_rate,
            tuned.detection_rate,
            "higher",
            *pictures,
            _of_real(base.real_detection_rate),
        ),
        MetricRow(
            "gesture accuracy",
            base.gesture_accuracy,
            tuned.gesture_accuracy,
            "higher",
            *pictures,
            _of_real(base.real_gesture_accuracy),
        ),
    ]


def rates_by_gesture(base: Metrics, tuned: Metrics) -> list[GestureRow]:
    """What can be told of each gesture by itself; nothing where there is only one, whose measures are all there are."""
    if len(tuned.by_gesture) == 1:
        return []
    return [
        GestureRow(
            gesture,
            (base.by_gesture[gesture].gesture_accuracy, own.gesture_accuracy, own.real_gesture_accuracy),
            (base.by_gesture[gesture].detection_rate, own.detection_rate, own.real_detection_rate),
            own.n_fake,
        )
        for gesture, own in tuned.by_gesture.items()
    ]


def compare_table(base: Metrics, tuned: Metrics, *, markdown: bool = False) -> str:
    """A table of both models' measures; an arrow shows which direction is better. Of several gestures, a second one.

    Args:
        base, tuned: measured on as many real pictures with the same features.
        markdown: as Markdown tables instead of aligned plain text.
    """
    head = ["measure", "base", "tuned", "n", "note"]
    cells = [
        [f"{row.name} {row.arrow}", _figure(row.base), _figure(row.tuned), row.n, row.note]
        for row in compare_metrics(base, tuned)
    ]
    show = markdown_table if markdown else aligned_table
    tables = [show(head, cells, numbers=range(1, 4))]
    if rates := rates_by_gesture(base, tuned):
        tables.append(show(GESTURE_HEADER, [row.cells for row in rates], numbers=range(1, len(GESTURE_HEADER))))
    return "\n".join(tables)


def _value(distance: Distance | None) -> float | None:
    return None if distance is None else distance.value


def _intervals(base: Distance | None, tuned: Distance | None) -> str:
    shown = ["–" if one is None else f"{one.low:.4g} to {one.high:.4g}" for one in (base, tuned)]
    return f"95 %: {shown[0]}; {shown[1]}"


def _of_real(value: float | None) -> str:
    return f"real pictures: {_figure(value)}"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
