"""The life of a model in the registry, by the commands of a reviewer: `make story`.

A real MLflow server keeps its records in PostgreSQL and its files on S3. The models are real but tiny, and what their
gates measure is drawn from a random generator instead of from images; everything else is what users run.
"""

import contextlib
import io
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hand1000.cli import main as cli
from hand1000.config.settings import load_settings
from hand1000.evaluation.gate_report import GateReport
from hand1000.evaluation.gates import evaluate_gates
from hand1000.evaluation.paired import Estimate, estimate_rate, estimate_rate_difference
from hand1000.evaluation.paired_metrics import PairedMetric, PairedMetrics
from hand1000.registry.connection import connect
from hand1000.registry.register import register_candidate
from hand1000.registry.tracking import RunTracker
from hand1000.registry.versions import COMPARED_WITH, GATES, VERDICT, RegisteredVersion, find_champion
from hand1000.storage.files import write_json
from tests.support.mlflow_server import mlflow_server
from tests.support.postgres import postgres_server
from tests.support.s3_server import BUCKET, s3_server
from tests.support.tiny_pipelines import pipeline_of

GESTURE = "four"
IMAGES = 200
PROMPT = "a hand, making four fingers up hand gesture"

Rates = tuple[float, float]
"""Gesture accuracy and detection rate of a model."""


class Story:
    """Runs commands and prints them with their output, as a terminal would show them.

    Attributes:
        rates: What is measured of each model, by the address of its candidate or of its promoted version.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rates: dict[str, Rates] = {}
        self.tracking = connect(create=False)

    def tell(self, text: str) -> None:
        """Print a sentence of the story."""
        print(f"\n# {text}", flush=True)

    def run(self, command: str, status: int = 0) -> str:
        """Run `hand1000 COMMAND`, print it with its output, and return that.

        Args:
            command: The arguments, as in a shell.
            status: The exit status that the story expects.
        """
        print(f"$ hand1000 {command}", flush=True)
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(io.StringIO()) as errors:
            found = cli.main(shlex.split(command))
        lines = [line for line in errors.getvalue().splitlines() if line.startswith("hand1000: ")]
        text = "\n".join([*output.getvalue().rstrip().splitlines(), *lines])
        print(text, flush=True)
        assert found == status, f"status {found}, not {status}: {errors.getvalue()}"
        return text

    def train(self, accuracy: float, detection: float) -> RegisteredVersion:
        """Do what a training does at its end: find the champion, evaluate the gates, register the candidate."""
        number = 1 + sum(1 for address in self.rates if "-candidates/" in address)
        champion = find_champion(self.tracking, [GESTURE])
        measured = measure((accuracy, detection), self.rates[champion.uri] if champion else None)
        settings = load_settings("default").gates.model_dump()
        measurable = {"gesture_accuracy", "detection_rate", "on_failed_gate"}
        off = {name: dict.fromkeys(bounds) for name, bounds in settings.items() if name not in measurable}
        report = evaluate_gates(
            measured, load_settings("default").gates.model_validate(settings | off), champion.uri if champion else ""
        )
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            version = self._register(number, report, {"gesture accuracy": accuracy, "detection rate": detection})
        self.rates[version.uri] = (accuracy, detection)
        print(f"gates       {report.summary}\nregistered  {version.uri}", flush=True)
        return version

    def _register(self, number: int, report: GateReport, metrics: dict[str, float]) -> RegisteredVersion:
        pipeline, folder = pipeline_of(GESTURE), self.folder / f"model-{number}"
        pipeline.fusion.linear.bias.data += number / 100
        pipeline.save_pretrained(folder)
        tracker = RunTracker("hand1000", f"training-{number}", self.tracking)
        write_json(self.folder / "gates.json", report)
        tracker.log_file(self.folder / "gates.json")
        tags = {VERDICT: report.verdict, GATES: report.summary, COMPARED_WITH: report.champion}
        version = register_candidate(
            tracker, folder, gestures=(GESTURE,), metrics=metrics, card=f"# hand1000-{GESTURE}\n", tags=tags
        )
        tracker.finish()
        return version

    def promoted(self, candidate: RegisteredVersion) -> None:
        """Note what was measured of the new champion."""
        champion = find_champion(self.tracking, [GESTURE])
        assert champion is not None
        self.rates[champion.uri] = self.rates[candidate.uri]


def measure(tuned: Rates, champion: Rates | None) -> PairedMetrics:
    """Return metrics of random outcomes on the same prompts and seeds."""
    rows = []
    for index, name in enumerate(("gesture accuracy", "detection rate")):
        outcomes = {"tuned": draw(tuned[index], 2 * index)}
        if champion:
            outcomes["champion"] = draw(champion[index], 2 * index + 1)
        models = {model: estimate_rate(values) for model, values in outcomes.items()}
        differences: dict[str, Estimate] = {}
        if champion:
            differences["champion"] = estimate_rate_difference(outcomes["tuned"], outcomes["champion"])
        rows.append(
            PairedMetric(name=name, gesture=None, better="higher", n=IMAGES, models=models, differences=differences)
        )
    return PairedMetrics(metrics=tuple(rows))


def draw(rate: float, seed: int) -> np.ndarray:
    """Return successes and failures of images at this rate, in a random order."""
    return np.random.default_rng(seed).permutation(np.arange(IMAGES) < round(rate * IMAGES))


@contextlib.contextmanager
def serve_registry(folder: Path) -> Iterator[None]:
    """Run MLflow, PostgreSQL and S3 until the block ends; the environment's variables name them."""
    before = dict(os.environ)
    (folder / "s3").mkdir()
    try:
        with s3_server(folder / "s3") as s3, postgres_server() as database:
            os.environ |= {**s3, "XDG_CACHE_HOME": str(folder / "cache"), "USER": "ada", "LOGNAME": "ada"}
            os.environ.pop("MLFLOW_TRACKING_USERNAME", None)
            with mlflow_server(folder, f"s3://{BUCKET}/mlflow", database=database) as uri:
                os.environ["MLFLOW_TRACKING_URI"] = uri
                yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def tell_story(folder: Path) -> Story:
    """Tell the whole story and check each of its turns."""
    story = Story(folder)
    story.tell("The first training of a gesture registers a candidate. There is no champion to compare it with.")
    first = story.train(0.62, 0.86)
    story.run("review list four")
    story.tell("The reviewer looks at it and promotes it.")
    story.run("review show four/1")
    story.run('review promote four/1 --champion none --reason "first model that passes"')
    story.promoted(first)

    story.tell("The next training is compared with the champion on the same prompts and seeds, and is better.")
    better = story.train(0.74, 0.90)
    story.run("review compare four/2")
    story.run("review promote four/2")
    story.promoted(better)

    story.tell("A training on damaged data gives a worse model, which its gates fail. Nobody promotes it by mistake.")
    worse = story.train(0.51, 0.88)
    story.run("review promote four/3", status=2)
    story.run('review reject four/3 --reason "a third of its images were cropped"')
    story.tell("The failed candidate is no yardstick: the next one is compared with the champion again.")
    override = story.train(0.58, 0.97)
    champion = find_champion(story.tracking, [GESTURE])
    assert champion is not None and champion.uri == "models:/hand1000-four/2" != worse.uri

    story.tell("It misses one gate by little and finds more hands than any before. The reviewer overrides the gate.")
    story.run("review promote four/4", status=2)
    story.run('review promote four/4 --override "the stage needs a hand in every image"')
    story.promoted(override)
    story.tell("Another reviewer still sees the old champion on the page, and promotes the second candidate again.")
    story.run("review promote four/2 --champion 2 --as bob", status=2)

    story.tell("Users complain. The reviewer rolls back, and the champion draws as before.")
    story.run('review rollback four --reason "thumbs are missing"')
    image = story.folder / "hand.png"
    story.run(f'generate --model models:/hand1000-four@champion --num 1 --steps 2 --prompt "{PROMPT}" --out {image}')
    assert image.stat().st_size > 0
    story.tell("Everything that was decided, by whom and why:")
    history = story.run("review history four")
    assert [line.split()[4] for line in history.splitlines()[1:6]] == [
        "promote",
        "promote",
        "reject",
        "promote",
        "rollback",
    ]
    states = story.run("review list four")
    assert [line.split()[:2] for line in states.splitlines()[1:5]] == [
        ["four/4", "superseded"],
        ["four/3", "rejected"],
        ["four/2", "approved"],
        ["four/1", "superseded"],
    ]

    story.tell("Months later, the weights that nobody uses or reviews are removed. What a rollback needs stays.")
    story.run(f"gc --root s3://{BUCKET}/root --keep-days 0 --dry-run")
    story.run(f"gc --root s3://{BUCKET}/root --keep-days 0")
    story.run("review promote four/1 --champion 2", status=2)
    story.run("review rollback four")
    story.run("review history four")
    return story


def main() -> int:
    """Tell the story in a temporary folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print("# An MLflow server starts, with PostgreSQL and S3.", flush=True)
        with serve_registry(folder):
            tell_story(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
