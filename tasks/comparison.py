"""Measure several systems on one gesture, and put all gestures side by side."""

from typing import Any

from flytekit.types.directory import FlyteDirectory

from hand1000.config.settings import EvaluationSettings
from tasks.context import Artifact, TaskContext, address, cluster_task, run_cached

SAMPLES = 3
"""Pictures of each system that are kept to be looked at: the first ones."""


@cluster_task()
def measure_systems(
    dataset: FlyteDirectory,
    captions: list[FlyteDirectory],
    pictures: dict[str, list[FlyteDirectory]],
    trained: dict[str, list[FlyteDirectory]],
    embeddings: list[FlyteDirectory],
    settings: EvaluationSettings,
    seed: int,
    run: str,
    root: str,
) -> Artifact:
    """Of each system `<name>.json`, its measures and cost, and `<name>/`, some of its pictures.

    Args:
        dataset: of `prepare_data`; its held-out images are looked at once for all systems.
        pictures: of each system, by shards.
        trained: what had to be trained for a system, if anything had to.
        embeddings: what Hand1000 needed besides, by shards.
        settings: how the pictures are measured.
        seed: of the intervals.
        run: key of the MLflow run.
        root: the artifact root.
    """
    import shutil

    from hand1000.data.captioning import read_captioned_split
    from hand1000.data.imageset import read_image_set
    from hand1000.data.join import merge_image_sets
    from hand1000.evaluation.evaluator import Evaluator
    from hand1000.evaluation.methods import SOURCE_METHOD, MethodResult, read_cost
    from hand1000.storage.files import write_json

    evaluator = Evaluator.from_settings(settings)

    def build(work: TaskContext) -> None:
        def makings(parts: list[FlyteDirectory]) -> list[dict[str, Any]]:
            return [work.store.provenance(address(part)) for part in parts]

        records = read_captioned_split(work.read(dataset), "test", [work.read(part) for part in captions])
        real = evaluator.extract_real(work.read(dataset), work.report, records)
        for name, parts in pictures.items():
            folder = merge_image_sets([work.read(part) for part in parts], work.out.with_name(name))
            fake = evaluator.extract(folder, work.report)
            metrics = evaluator.compute(real, fake, seed=seed)
            under = pictures[SOURCE_METHOD[name]] if name in SOURCE_METHOD else []
            needed = [*trained.get(name, []), *(embeddings if name == "hand1000" else [])]
            cost = read_cost(makings(needed), makings(parts), makings(under), metrics.n_fake)
            write_json(work.out / f"{name}.json", MethodResult(metrics=metrics, cost=cost))
            (work.out / name).mkdir()
            for place, record in enumerate(read_image_set(folder)[:SAMPLES]):
                shutil.copy(folder / record.file_name, work.out / name / f"{place}.png")

    return run_cached(
        "measure_systems",
        root=root,
        run=run,
        build=build,
        inputs={
            "dataset": dataset,
            "captions": captions,
            "pictures": [[name, parts] for name, parts in pictures.items()],
            "trained": [[name, parts] for name, parts in trained.items()],
            "embeddings": embeddings,
            "seed": seed,
            **evaluator.cache_key_fields(),
        },
    )


@cluster_task(enable_deck=True)
def write_comparison(gestures: dict[str, FlyteDirectory], root: str) -> Artifact:
    """`comparison.html` with the tables and the pictures, beside them each by itself; the page also as Deck.

    Args:
        gestures: what `measure_systems` found, by gesture.
        root: the artifact root.
    """
    from flytekit import Deck

    from hand1000.evaluation.methods import METHODS, MethodResult
    from hand1000.reports.comparison import write_comparison as write
    from hand1000.storage.artifacts import open_store
    from hand1000.storage.files import read_json

    def build(work: TaskContext) -> None:
        folders = {gesture: work.read(folder) for gesture, folder in gestures.items()}
        names = [name for name in METHODS if all((folder / f"{name}.json").is_file() for folder in folders.values())]
        write(
            work.out,
            {
                gesture: {name: MethodResult.model_validate(read_json(folder / f"{name}.json")) for name in names}
                for gesture, folder in folders.items()
            },
            {
                gesture: {name: sorted((folder / name).iterdir()) for name in names}
                for gesture, folder in folders.items()
            },
        )

    found = run_cached(
        "write_comparison",
        root=root,
        run="",
        build=build,
        inputs={"gestures": [[gesture, folder] for gesture, folder in gestures.items()]},
    )
    folder = open_store(root).fetch(address(found))
    print(f"\n{(folder / 'tables.md').read_text()}\npage  {address(found)}/comparison.html")
    Deck("comparison", (folder / "comparison.html").read_text())
    return found
