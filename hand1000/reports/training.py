"""The report of a run: one HTML file.

Captions, file names and prompts come from outside: all text passes through `escape`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from hand1000.core.tables import format_number
from hand1000.evaluation.base_vs_tuned import GestureRow, MetricRow, gesture_rates_table
from hand1000.reports.figures import curve_svg, hand_svg
from hand1000.reports.html import facts, image, page, section
from hand1000.reports.model_card import python_snippet, shell_snippet
from hand1000.storage.files import write_text


@dataclass(frozen=True)
class Pair:
    """The base's picture and the tuned model's from one prompt and one seed; `note` says what was measured on them."""

    prompt: str
    seed: int
    base: Path
    tuned: Path
    note: str = ""


@dataclass(frozen=True)
class Curve:
    """What a stage logged: (step, value) with rising steps."""

    title: str
    points: Sequence[tuple[int, float]]
    y_label: str = "loss"


@dataclass(frozen=True)
class Sample:
    """A picture and what is said of it: a training image with its caption, or what was drawn while training."""

    image: Path
    caption: str


@dataclass(frozen=True)
class ReportContent:
    """All that the report shows.

    Args:
        phrases: what the captions call each gesture, by HaGRID's name.
        run_key: of the workflow run.
        model_uri: of the registered version, such as `models:/hand1000-call-candidates/3`.
        date: as it is to be printed.
        base_model: name and revision.
        measures: base and tuned on the same prompts and seeds; rates: of each of several gestures.
        extractor, resizer: what the image features come from.
        random_pairs: drawn blindly; worst_pairs: those where the tuned model shows the gesture least.
        curves, samples: of training.
        looks: pictures of the same prompts and noise, drawn on the way.
        hands: by gesture 21 of (x, y, z), the mean hand of Stage I; none where it is not one hand's shape.
        counts: of images by what happened to them; unusable: file names with the reason.
        settings_yaml: the complete configuration.
        seconds: by stage, in order.
    """

    phrases: Mapping[str, str]
    run_key: str
    model_uri: str
    date: str
    base_model: str
    measures: Sequence[MetricRow]
    extractor: str
    resizer: str
    random_pairs: Sequence[Pair]
    worst_pairs: Sequence[Pair]
    curves: Sequence[Curve]
    samples: Sequence[Sample]
    hands: Mapping[str, Sequence[Sequence[float]]]
    counts: Mapping[str, int]
    settings_yaml: str
    seconds: Mapping[str, float]
    unusable: Mapping[str, str] = field(default_factory=dict)
    looks: Sequence[Sample] = ()
    rates: Sequence[GestureRow] = ()


def write_report(path: Path, content: ReportContent) -> None:
    """Write the report to `path`, whole or not at all.

    Raises:
        Hand1000Error: a picture that is missing or unreadable, or a place that may not be written.
    """
    write_text(path, report_html(content))


def report_html(content: ReportContent) -> str:
    """The report as HTML."""
    sections = [
        _header(content),
        section("Measured", _measures(content) + _rates(content.rates)),
        section("Base and tuned: pictures drawn at random", _pairs(content.random_pairs)),
        section("Base and tuned: the worst of the tuned model", _pairs(content.worst_pairs)),
        section("Training", _curves(content.curves) + _looks(content.looks)),
        section("What it was trained on", _training_data(content)),
        section("How the data was prepared", _preparation(content)),
        section("Time", _times(content.seconds)),
        section("Settings", f"<details><summary>all</summary><pre>{escape(content.settings_yaml)}</pre></details>"),
        section("Load the model", _loading(content)),
    ]
    return page(f"Hand1000: {', '.join(content.phrases)}", sections)


def _header(content: ReportContent) -> str:
    shown = {
        "registered as": content.model_uri,
        "run": content.run_key,
        "base model": content.base_model,
        "date": content.date,
    }
    phrases = ", ".join(f"“{phrase}”" for phrase in content.phrases.values())
    return (
        f"<header><h1>{escape(', '.join(content.phrases))}</h1>"
        f'<p class="lead">{escape(phrases)}</p>{facts(shown.items())}</header>'
    )


def _measures(content: ReportContent) -> str:
    rows = []
    for each in content.measures:
        cells = [f"<td>{escape(each.title)}</td>"]
        for side in ("base", "tuned"):
            css = "number better" if each.winner == side else "number"
            cells.append(f'<td class="{css}">{format_number(getattr(each, side))}</td>')
        cells.append(f'<td class="number">{each.n}</td><td class="faint">{escape(each.note)}</td>')
        rows.append(f"<tr>{''.join(cells)}</tr>")
    head = '<tr><th>measure</th><th class="number">base</th><th class="number">tuned</th><th class="number">n</th>'
    return (
        f'<div class="table"><table>{head}<th></th></tr>{"".join(rows)}</table></div>'
        '<p class="faint">↓ lower is better, ↑ higher is better; the bold one is better. Both models drew from the '
        f"same prompts and seeds. Features: {escape(content.extractor)}; resizer: {escape(content.resizer)}; figures "
        "of other features or resizers do not compare.</p>"
    )


def _rates(rates: Sequence[GestureRow]) -> str:
    if not rates:
        return ""
    table = gesture_rates_table(rates)
    head = "".join(f"<th{_css(column)}>{escape(name)}</th>" for column, name in enumerate(table.header))
    rows = (
        "".join(f"<td{_css(column)}>{escape(str(cell))}</td>" for column, cell in enumerate(row)) for row in table.rows
    )
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f'<h3>By gesture</h3><div class="table"><table><tr>{head}</tr>{body}</table></div>'


def _css(column: int) -> str:
    return ' class="number"' if column else ""


def _pairs(pairs: Sequence[Pair]) -> str:
    if not pairs:
        return '<p class="none">none</p>'
    figures = []
    for pair in pairs:
        note = f"<br><small>{escape(pair.note)}</small>" if pair.note else ""
        figures.append(
            f'<figure><div class="two"><div><span>base</span>{image(pair.base, "base: " + pair.prompt)}</div>'
            f"<div><span>tuned</span>{image(pair.tuned, 'tuned: ' + pair.prompt)}</div></div>"
            f"<figcaption>{escape(pair.prompt)}<br><small>seed {pair.seed}</small>{note}</figcaption></figure>"
        )
    return f'<div class="pairs">{"".join(figures)}</div>'


def _curves(curves: Sequence[Curve]) -> str:
    figures = [
        f"<figure>{curve_svg(curve.points, x_label='step', y_label=curve.y_label)}"
        f"<figcaption>{escape(curve.title)}</figcaption></figure>"
        for curve in curves
    ]
    return (
        f'<div class="curves">{"".join(figures)}</div>' if figures else '<p class="none">nothing recorded</p>'
    ) + '<p class="faint">Faint: as logged; bold: smoothed.</p>'


def _looks(looks: Sequence[Sample]) -> str:
    figures = [
        f"<figure>{image(look.image, look.caption)}<figcaption>{escape(look.caption)}</figcaption></figure>"
        for look in looks
    ]
    return f"<h3>Drawn while it was trained</h3>{''.join(figures)}" if figures else ""


def _training_data(content: ReportContent) -> str:
    figures = [
        f"<figure>{image(sample.image, sample.caption)}<figcaption>{escape(sample.caption)}</figcaption></figure>"
        for sample in content.samples
    ]
    hands = "".join(
        f"<figure class='fit'>{hand_svg(landmarks)}<figcaption>{escape(gesture)}: 21 landmarks, averaged</figcaption>"
        "</figure>"
        for gesture, landmarks in content.hands.items()
    )
    title = "<h3>The mean hand of Stage I</h3>" if hands else ""
    return f'<div class="samples">{"".join(figures)}</div>{title}{hands}'


def _preparation(content: ReportContent) -> str:
    names = "".join(
        f"<li>{escape(name)}: <span class='faint'>{escape(reason)}</span></li>"
        for name, reason in content.unusable.items()
    )
    listing = f"<details><summary>{len(content.unusable)} unusable images</summary><ul>{names}</ul></details>"
    return facts(content.counts.items()) + (listing if names else '<p class="none">No image was unusable.</p>')


def _times(seconds: Mapping[str, float]) -> str:
    return facts((name, _duration(value)) for name, value in [*seconds.items(), ("together", sum(seconds.values()))])


def _loading(content: ReportContent) -> str:
    prompt = content.random_pairs[0].prompt if content.random_pairs else next(iter(content.phrases.values()))
    python, shell = python_snippet(content.model_uri, prompt), shell_snippet(content.model_uri, prompt)
    return f"<pre>{escape(python)}</pre><pre>{escape(shell)}</pre>"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
