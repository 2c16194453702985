"""The model card in Markdown: what a person must know before using the model."""

import json
import shlex

from hand1000.core.tables import Table
from hand1000.evaluation.base_vs_tuned import gesture_rates_table, metrics_table
from hand1000.gestures import gesture_phrase
from hand1000.reports.html import render_template
from hand1000.reports.run import FinishedRun

LICENSES = {
    "the small base model and the rendered hands": "Apache-2.0, as this project",
    "Stable Diffusion 1.x, if it is the base model": "CreativeML OpenRAIL-M",
    "HaGRID, if it is the dataset": "a variant of CC BY-SA 4.0",
}


def render_model_card(run: FinishedRun) -> str:
    """Render the card of a finished run as Markdown."""
    _, tuned = run.metrics
    stage2, stage3 = run.settings.stage2, run.settings.stage3
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
        "seed": run.settings.seed,
    }
    # The version's number is unknown before its card is registered.
    model_uri = "models:/NAME/VERSION"
    return render_template(
        "model_card.md.j2",
        phrases={gesture: gesture_phrase(gesture) for gesture in run.gestures},
        metrics=metrics_table(run.metric_rows),
        gesture_rates=gesture_rates_table(*run.metrics),
        extractor=tuned.extractor,
        resizer=tuned.resizer,
        training=Table(("input", "value"), list(training.items())),
        licenses=Table(("component", "license"), list(LICENSES.items())),
        snippets=usage_snippets(model_uri, run.example_prompt),
    )


def usage_snippets(model_uri: str, prompt: str, registry: str = "") -> tuple[str, str]:
    """Python code that loads the model and generates an image, and a shell command that generates several.

    `registry` is the address of the model's MLflow, "" where it is found without one.
    """
    option = f", registry={json.dumps(registry)}" if registry else ""
    python = (
        "from hand1000 import load_pipeline\n\n"
        f'pipeline = load_pipeline("{model_uri}"{option})\n'
        f'pipeline({json.dumps(prompt, ensure_ascii=False)}).images[0].save("out.png")'
    )
    return python, shell_snippet(model_uri, prompt, registry)


def shell_snippet(model_uri: str, prompt: str, registry: str = "") -> str:
    """A shell command that loads the model and generates images; see `usage_snippets`."""
    model = f"--model {model_uri}" + (f" --registry {shlex.quote(registry)}" if registry else "")
    return f"hand1000 generate {model} --prompt {shlex.quote(prompt)} --num 8 --out grid.png"
