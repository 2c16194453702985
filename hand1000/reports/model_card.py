"""The model card in Markdown: what a person must know before using the model."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hand1000.core.tables import Bold, Table
from hand1000.evaluation.base_vs_tuned import GestureRow, MetricRow, gesture_rates_table, metrics_table
from hand1000.gestures import gesture_phrase
from hand1000.reports.html import render_template
from hand1000.reports.run import FinishedRun

LICENSES = {
    "the small base model and the rendered hands": "Apache-2.0, as this project",
    "Stable Diffusion 1.x, if it is the base model": "CreativeML OpenRAIL-M",
    "HaGRID, if it is the dataset": "a variant of CC BY-SA 4.0",
}


@dataclass(frozen=True)
class CardContent:
    """Everything that the card states.

    Attributes:
        gestures: HaGRID's names of the gestures.
        base_model: Name of the base model.
        base_revision: Its revision or digest.
        data_digest: Digest of the prepared dataset.
        counts: Numbers of images, such as `{"train": 1000, "test": 1000}`.
        settings: The most important settings.
        metric_rows: Metrics of both models.
        extractor: Name of the feature extractor.
        resizer: Its resizer.
        prompt: An example prompt.
        gesture_rows: Rates of each of several gestures.
        licenses: License of each component.
        model_uri: Address of the model in the usage example. The version's number is unknown before registration.
    """

    gestures: Sequence[str]
    base_model: str
    base_revision: str
    data_digest: str
    counts: Mapping[str, int]
    settings: Mapping[str, object]
    metric_rows: Sequence[MetricRow]
    extractor: str
    resizer: str
    prompt: str
    gesture_rows: Sequence[GestureRow] = ()
    licenses: Mapping[str, str] = field(default_factory=dict)
    model_uri: str = "models:/NAME/VERSION"


def render_model_card(content: CardContent) -> str:
    """Render the card as Markdown.

    Raises:
        Hand1000Error: A gesture is unknown.
    """
    phrases = {gesture: gesture_phrase(gesture) for gesture in content.gestures}
    training = [
        ("base model", f"{content.base_model}, revision {content.base_revision}"),
        ("dataset", f"sha256 `{content.data_digest}`"),
        *((f"images, {split}", count) for split, count in content.counts.items()),
        *content.settings.items(),
    ]
    usage = f"{python_snippet(content.model_uri, content.prompt)}\n\n{shell_snippet(content.model_uri, content.prompt)}"
    return render_template(
        "model_card.md.j2",
        card=content,
        phrases=phrases,
        phrases_table=Table(("gesture", "phrase"), [(gesture, Bold(phrase)) for gesture, phrase in phrases.items()]),
        metrics=metrics_table(content.metric_rows),
        gesture_rates=gesture_rates_table(content.gesture_rows),
        training=Table(("input", "value"), training),
        licenses=Table(("component", "license"), list(content.licenses.items())),
        # Indentation marks code: unlike a fence, no text in a prompt can end it.
        usage=usage,
    )


def build_card_content(run: FinishedRun) -> CardContent:
    """Collect the content of the card of a finished run."""
    _, tuned = run.metrics
    stage2, stage3 = run.settings.stage2, run.settings.stage3
    weights = "all weights" if stage3.training_mode == "full" else f"LoRA adapters of rank {stage3.lora.rank}"
    return CardContent(
        gestures=run.gestures,
        base_model=run.base_model,
        base_revision=run.base_identity,
        data_digest=run.data_digest,
        counts={"train": run.preparation.train, "test": run.preparation.test},
        settings={
            "lambda": stage2.lambda_,
            "Stage II": f"{stage2.fusion_steps} steps for the fusion, {stage2.embedding_steps} for each embedding",
            "Stage III": f"{weights}, {stage3.steps} steps with batch size {stage3.batch_size}, "
            f"learning rate {stage3.learning_rate:g}",
            "seed": run.settings.seed,
        },
        metric_rows=run.metric_rows,
        extractor=tuned.extractor,
        resizer=tuned.resizer,
        prompt=run.example_prompt,
        gesture_rows=run.gesture_rows,
        licenses=LICENSES,
    )


def python_snippet(model_uri: str, prompt: str) -> str:
    """Python code that loads the model and generates an image."""
    return (
        "from hand1000 import Hand1000Pipeline\n"
        "from hand1000.registry.load import load_model_folder\n\n"
        f'pipeline = Hand1000Pipeline.from_pretrained(load_model_folder("{model_uri}"))\n'
        f'pipeline({json.dumps(prompt, ensure_ascii=False)}).images[0].save("out.png")'
    )


def shell_snippet(model_uri: str, prompt: str) -> str:
    """A shell command that loads the model and generates images."""
    return f"hand1000 generate --model {model_uri} --prompt {shlex.quote(prompt)} --num 8 --out grid.png"
