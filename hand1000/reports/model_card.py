"""The model card in Markdown: what a person must know before using the model. It describes the version in MLflow."""

from hand1000.core.tables import Bold, Table, format_number
from hand1000.gestures import gesture_phrase
from hand1000.reports.compared_images import evaluated_models
from hand1000.reports.gate_table import gate_table
from hand1000.reports.html import render_template
from hand1000.reports.metric_lines import MetricLine, read_metric_lines
from hand1000.reports.run import FinishedRun
from hand1000.reports.snippets import usage_snippets

LICENSES = {
    "the small base model and the rendered hands": "Apache-2.0, as this project",
    "Stable Diffusion 1.x, if it is the base model": "CreativeML OpenRAIL-M",
    "HaGRID, if it is the dataset": "a variant of CC BY-SA 4.0",
}

_MAX_METRICS, _MIN_METRICS = 12, 2
"""Number of metrics of the card. With many gates it has fewer, but always those of gesture and detection."""

_MAX_LENGTH = 5000
"""Number of characters of a version's description that MLflow keeps."""


def render_model_card(run: FinishedRun, image_url: str = "") -> str:
    """Render the card of a finished run as Markdown, with as many metrics as fit into a version's description.

    Args:
        run: The run.
        image_url: Address of an image with a row of images per model; "" shows none.
    """
    lines = read_metric_lines(run)
    cards = (_render(run, image_url, lines[:count]) for count in range(_MAX_METRICS, _MIN_METRICS - 1, -1))
    return next((card for card in cards if len(card) <= _MAX_LENGTH), _render(run, image_url, lines[:_MIN_METRICS]))


def _render(run: FinishedRun, image_url: str, lines: list[MetricLine]) -> str:
    tuned = run.metrics[1]
    stage2, stage3, sampler = run.settings.stage2, run.settings.stage3, run.settings.generation
    weights = "all weights" if stage3.training_mode == "full" else f"LoRA adapters of rank {stage3.lora.rank}"
    training = {
        "base model": f"{run.base_model}, revision {run.base_identity}",
        "dataset": f"sha256 `{run.data_digest}`",
        "training images": run.preparation.train,
        "test images": run.preparation.test,
        "lambda": stage2.lambda_,
        "Stage II": f"{stage2.fusion_steps} steps for the fusion, {stage2.embedding_steps} for each embedding",
        "Stage III": f"{weights}, {stage3.steps} steps with batch size {stage3.batch_size}, "
        f"learning rate {stage3.learning_rate:g}",
        "sampler": f"{sampler.sampler}, {sampler.num_inference_steps} steps",
        "seed": run.settings.seed,
    }
    # The version's number is unknown before its card is registered.
    model_uri = "models:/NAME/VERSION"
    return render_template(
        "model_card.md.j2",
        phrases={gesture: gesture_phrase(gesture) for gesture in run.gestures},
        gates=run.gates,
        gate_table=gate_table(run.gates),
        image_url=image_url,
        models=" / ".join(evaluated_models(run)),
        metrics=card_metrics(lines),
        extractor=tuned.extractor,
        classifier=tuned.classifier_summary,
        resizer=tuned.resizer,
        training=Table(("input", "value"), list(training.items())),
        autoguidance_scale=sampler.autoguidance_scale,
        export=run.export_metrics,
        licenses=Table(("component", "license"), list(LICENSES.items())),
        snippets=usage_snippets(model_uri, run.example_prompt),
    )


def card_metrics(lines: list[MetricLine]) -> Table:
    """The metrics of all models with the candidate's interval; a conclusion is bold if it is more than chance."""
    models = list(dict.fromkeys(model for line in lines for model in line.points))
    rows = []
    for line in lines:
        values = [format_number(line.points[model].value) if model in line.points else "–" for model in models]
        # No model has a value of a gesture that the classifier does not know.
        interval = line.points[models[-1]].text if models and models[-1] in line.points else ""
        conclusion = line.conclusion.text
        certain = line.conclusion.kind in ("better", "worse")
        rows.append((line.title, *values, interval or "–", Bold(conclusion) if certain else conclusion, line.n))
    header = ("metric", *models, "95 % interval", "candidate is", "n")
    return Table(header, rows, numeric=range(1, len(models) + 2))
