"""Register the model as a candidate, and write the report that its reviewer reads."""

from pathlib import Path
from typing import NamedTuple

from flytekit import Deck
from flytekit.types.directory import FlyteDirectory

from hand1000.gestures import phrase_of
from hand1000.settings import Settings
from tasks.common import Artifact, Work, address, digest, open_tracker, produce, small_task


class Registered(NamedTuple):
    """The registered version and the folder of its report."""

    model_uri: str
    report: Artifact


@small_task(enable_deck=True)
def register(
    dataset: FlyteDirectory, feature: FlyteDirectory, fusion: FlyteDirectory, embeddings: list[FlyteDirectory],
    model: FlyteDirectory, base_images: list[FlyteDirectory], tuned_images: list[FlyteDirectory],
    evaluation: FlyteDirectory, gesture: str, base_model: str, settings: Settings, run: str, root: str,
) -> Registered:
    """One version in the registry for these weights, however often this runs; `report.html` as artifact and Deck."""
    import datetime

    import yaml

    from hand1000.data.join import joined_image_set
    from hand1000.diffusion.base_model import base_identity
    from hand1000.registry.card import model_card
    from hand1000.registry.register import register_candidate
    from hand1000.registry.report import write_report
    from hand1000.registry.summary import RunFacts, RunFolders, card_content, measures_of, report_content
    from hand1000.storage.store import open_store

    facts = RunFacts(gesture, base_model, base_identity(base_model), digest(dataset), run, settings)
    store = open_store(root)
    tracker = open_tracker(run, root)
    stage = tracker.stage("register")

    def folders(work: Work) -> RunFolders:
        return RunFolders(
            dataset=work.read(dataset), feature=work.read(feature), fusion=work.read(fusion),
            embeddings=[work.read(part) for part in embeddings], model=work.read(model),
            base_images=joined_image_set([work.read(part) for part in base_images], work.out.with_name("base")),
            tuned_images=joined_image_set([work.read(part) for part in tuned_images], work.out.with_name("tuned")),
            evaluation=work.read(evaluation),
        )

    def build(work: Work) -> None:
        here = folders(work)
        rows = measures_of(here.evaluation)
        version = register_candidate(
            stage, here.model, gesture=gesture, metrics={row.name: row.tuned for row in rows},
            card=model_card(card_content(facts, here)),
        )
        content = report_content(
            facts, here, model_uri=version.uri, date=f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
            seconds=tracker.stage_seconds(),
            settings_yaml=yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False),
        )
        write_report(work.out / "report.html", content)
        (work.out / "model_uri.txt").write_text(version.uri)

    report = produce(
        "register", root=root, run=run, build=build,
        inputs={
            "mlflow": tracker.tracking.public_uri, "model": model, "evaluation": evaluation, "dataset": dataset,
            "feature": feature, "base_images": base_images, "tuned_images": tuned_images, "run": run,
        },
    )
    folder = store.fetch(address(report))
    uri = (folder / "model_uri.txt").read_text()
    tracker.log_file(folder / "report.html")
    rows = measures_of(store.fetch(address(evaluation)))
    for side in ("base", "tuned"):
        tracker.log_metrics({f"{side}.{row.name}": getattr(row, side) for row in rows})
    tracker.finish()
    _announce(gesture, uri, folder / "report.html", store.fetch(address(evaluation)) / "table.txt")
    Deck("report", (folder / "report.html").read_text())
    return Registered(model_uri=uri, report=report)


def _announce(gesture: str, model_uri: str, report: Path, table: Path) -> None:
    """The end of a run as a person reads it."""
    from hand1000.registry.card import shell_snippet

    print(
        f"\n{table.read_text()}\nreport      {report}\nregistered  {model_uri}\n\nnext\n"
        f"  open {report}\n  {shell_snippet(model_uri, phrase_of(gesture))}"
    )
