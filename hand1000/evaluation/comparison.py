"""The base model's measures beside those of the tuned one, as plain text and as Markdown."""

from hand1000.errors import Hand1000Error
from hand1000.evaluation.measure import Distance, Metrics
from hand1000.evaluation.measures import Measure


def comparison(base: Metrics, tuned: Metrics) -> list[Measure]:
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
        Measure("FID", base.fid, tuned.fid, "lower", *pictures, f"against {base.n_real} real pictures"),
        Measure("KID", base.kid.value, tuned.kid.value, "lower", *pictures, _intervals(base.kid, tuned.kid)),
        Measure("FID-H", base.fid_h, tuned.fid_h, "lower", *hands, f"against {base.hands_real} real hands"),
        Measure("KID-H", _value(base.kid_h), _value(tuned.kid_h), "lower", *hands, _intervals(base.kid_h, tuned.kid_h)),
        Measure("HAND-CONF", base.hand_conf, tuned.hand_conf, "higher", *hands, "of the hands that were found"),
        Measure(
            "detection rate",
            base.detection_rate,
            tuned.detection_rate,
            "higher",
            *pictures,
            _of_real(base.real_detection_rate),
        ),
        Measure(
            "gesture accuracy",
            base.gesture_accuracy,
            tuned.gesture_accuracy,
            "higher",
            *pictures,
            _of_real(base.real_gesture_accuracy),
        ),
    ]


def compare_table(base: Metrics, tuned: Metrics, *, markdown: bool = False) -> str:
    """A table of both models' measures; an arrow shows which direction is better.

    Args:
        base, tuned: measured on as many real pictures with the same features.
        markdown: as a Markdown table instead of aligned plain text.
    """
    head = ["measure", "base", "tuned", "n", "note"]
    cells = [
        [f"{row.name} {row.arrow}", _figure(row.base), _figure(row.tuned), row.n, row.note]
        for row in comparison(base, tuned)
    ]
    if markdown:
        lines = [head, ["---", "---:", "---:", "---:", "---"], *cells]
        return "".join("| " + " | ".join(line) + " |\n" for line in lines)
    widths = [max(len(line[column]) for line in [head, *cells]) for column in range(len(head))]
    return "".join(
        "  ".join(
            cell.rjust(width) if 0 < column < 4 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        + "\n"
        for line in [head, *cells]
    )


def _value(distance: Distance | None) -> float | None:
    return None if distance is None else distance.value


def _intervals(base: Distance | None, tuned: Distance | None) -> str:
    shown = ["–" if one is None else f"{one.low:.4g} to {one.high:.4g}" for one in (base, tuned)]
    return f"95 %: {shown[0]}; {shown[1]}"


def _of_real(value: float | None) -> str:
    return f"real pictures: {_figure(value)}"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
