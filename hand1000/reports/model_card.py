"""The model card: what a person must know before using the model, in Markdown."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hand1000.core.tables import format_number
from hand1000.evaluation.base_vs_tuned import GestureRow, MetricRow, gesture_rates_table
from hand1000.gestures import gesture_phrase

_USE = (
    "For research on the drawing of hands, and for pictures of people who make {what}: the prompt must hold "
    "the phrase above. Other gestures are not learned, faces and text are those of the base model, and its biases "
    "stay. Not for pictures of real persons, nor for anything that is to be taken for a photograph."
)


@dataclass(frozen=True)
class CardContent:
    """What the card says.

    Args:
        gestures: HaGRID's names of what it draws.
        base_model, base_revision: what was tuned.
        data_digest: sha256 of the prepared data.
        counts: of images, such as `{"train": 1000, "test": 1000}`.
        settings: those worth a line, by name.
        measures: base and tuned on the same prompts and seeds; rates: of each of several gestures.
        extractor, resizer: what the image features come from; figures of others do not compare.
        prompt: one that the model knows how to draw.
        licences: by what is licensed, such as `{"base model": "CreativeML OpenRAIL-M"}`.
        model_uri: how to name the model when loading it; a version's own number is not known before it is registered.
    """

    gestures: Sequence[str]
    base_model: str
    base_revision: str
    data_digest: str
    counts: Mapping[str, int]
    settings: Mapping[str, object]
    measures: Sequence[MetricRow]
    extractor: str
    resizer: str
    prompt: str
    rates: Sequence[GestureRow] = ()
    licences: Mapping[str, str] = field(default_factory=dict)
    model_uri: str = "models:/NAME/VERSION"


def render_model_card(content: CardContent) -> str:
    """The card as Markdown.

    Raises:
        Hand1000Error: an unknown gesture.
    """
    parts = [
        f"# Hand1000: {_cell(', '.join(content.gestures))}",
        _phrases(content.gestures),
        "## Measured",
        measures_table(content.measures),
        *([gesture_rates_table(content.rates).markdown().rstrip()] if content.rates else []),
        f"Features: {_cell(content.extractor)}; resizer: {_cell(content.resizer)}. Figures of other features or "
        "resizers do not compare. The bold one is better; ↓ lower, ↑ higher is better.",
        "## Made from",
        _table(
            ("what", "value"),
            [
                ("base model", f"{content.base_model}, revision {content.base_revision}"),
                ("data", f"sha256 `{content.data_digest}`"),
                *((f"images, {name}", count) for name, count in content.counts.items()),
                *content.settings.items(),
            ],
        ),
        f"## Use and limits\n\n{_USE.format(what=_what(content.gestures))}",
        "## Licences",
        _table(("of", "licence"), list(content.licences.items())) if content.licences else "None stated.",
        f"## Load\n\n{loading(content.model_uri, content.prompt)}",
    ]
    return "\n\n".join(parts) + "\n"


def _phrases(gestures: Sequence[str]) -> str:
    if len(gestures) == 1:
        phrase = gesture_phrase(gestures[0])
        return f"Draws people {phrase}. Every prompt must hold the phrase **{phrase}**."
    rows = [(gesture, f"**{gesture_phrase(gesture)}**") for gesture in gestures]
    return (
        "Draws people who make one of these gestures. Every prompt must hold the phrase of one; that of several needs "
        f"`gesture` besides.\n\n{_table(('gesture', 'phrase'), rows)}"
    )


def _what(gestures: Sequence[str]) -> str:
    return "this one gesture" if len(gestures) == 1 else "one of these gestures"


def loading(model_uri: str, prompt: str) -> str:
    """How to draw with the model, as Markdown; indented, since no mark in a prompt ends such a block."""
    lines = [*python_snippet(model_uri, prompt).splitlines(), "", shell_snippet(model_uri, prompt)]
    return "\n".join(f"    {line}".rstrip() for line in lines)


def python_snippet(model_uri: str, prompt: str) -> str:
    """A few lines that load the model and draw."""
    return (
        "from hand1000 import Hand1000Pipeline\n"
        "from hand1000.registry.load import load_model_folder\n\n"
        f'pipeline = Hand1000Pipeline.from_pretrained(load_model_folder("{model_uri}"))\n'
        f'pipeline({json.dumps(prompt, ensure_ascii=False)}).images[0].save("out.png")'
    )


def shell_snippet(model_uri: str, prompt: str) -> str:
    """The same on the command line."""
    return f"hand1000 generate --model {model_uri} --prompt {shlex.quote(prompt)} --num 8 --out grid.png"


def measures_table(measures: Sequence[MetricRow]) -> str:
    """The measures as a Markdown table, the better value in bold."""

    def value(measure: MetricRow, side: str) -> str:
        text = format_number(getattr(measure, side))
        return f"**{text}**" if measure.winner == side else text

    rows = [(each.title, value(each, "base"), value(each, "tuned"), each.n, each.note) for each in measures]
    return _table(("measure", "base", "tuned", "n", "note"), rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(value: object) -> str:
    """Text that stays in its cell and brings no markup of its own that a page would run."""
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")
