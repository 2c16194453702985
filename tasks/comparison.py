"""Evaluate several methods on one gesture, and put all gestures side by side."""

from flytekit.types.directory import FlyteDirectory

from hand1000.config.settings import EvaluationSettings
from hand1000.storage.files import read_json, write_json
from tasks.context import RunContext, TaskContext, address
from tasks.decorators import artifact_task
from tasks.evaluation import load_evaluator
from tasks.start_run import end_runs

SAMPLES = 3
"""Number of each method's first images that are kept for the comparison page."""


@artifact_task(load=load_evaluator, excluded=("settings",))
def evaluate_methods(
    context: TaskContext,
    real_features: FlyteDirectory,
    images: dict[str, list[FlyteDirectory]],
    trained: dict[str, list[FlyteDirectory]],
    embeddings: list[FlyteDirectory],
    settings: EvaluationSettings,
    seed: int,
) -> None:
    """`<name>.json` of each method, its metrics and cost, and `<name>/`, some of its images.

    The cost of a method includes its artifacts in `trained`, and for Hand1000 the optimized `embeddings`.
    """
    import shutil

    from hand1000.data.imageset import merge_image_sets, read_image_set
    from hand1000.evaluation.evaluator import RealFeatures
    from hand1000.evaluation.methods import SOURCE_METHOD, MethodResult, read_cost

    def costs(artifacts: list[FlyteDirectory]) -> list[dict[str, object]]:
        return [context.run.open_store().provenance(address(artifact)) for artifact in artifacts]

    evaluator, real = context.loaded["evaluator"].load(), RealFeatures.load(context.download(real_features))
    for name, shards in images.items():
        folder = merge_image_sets(context.download_all(shards), context.scratch_dir(name))
        metrics = evaluator.compute(real, evaluator.extract(folder, context.on_progress), seed=seed)
        source = images[SOURCE_METHOD[name]] if name in SOURCE_METHOD else []
        needed = [*trained.get(name, []), *(embeddings if name == "hand1000" else [])]
        cost = read_cost(costs(needed), costs(shards), costs(source), metrics.n_fake)
        write_json(context.output_dir / f"{name}.json", MethodResult(metrics=metrics, cost=cost))
        (context.output_dir / name).mkdir()
        for index, record in enumerate(read_image_set(folder)[:SAMPLES]):
            shutil.copy(folder / record.file_name, context.output_dir / name / f"{index}.png")


@artifact_task(deck="comparison.html", summary="tables.md", excluded=("runs",), finish=end_runs)
def write_comparison(context: TaskContext, gestures: dict[str, FlyteDirectory], runs: list[RunContext]) -> None:
    """`comparison.html` with the tables and the images, and each of them as a file of its own; ends all `runs`."""
    from hand1000.evaluation.methods import METHODS, MethodResult
    from hand1000.reports.comparison import write_comparison

    folders = {gesture: context.download(artifact) for gesture, artifact in gestures.items()}
    names = [name for name in METHODS if all((folder / f"{name}.json").is_file() for folder in folders.values())]
    write_comparison(
        context.output_dir,
        {
            gesture: {name: MethodResult.model_validate(read_json(folder / f"{name}.json")) for name in names}
            for gesture, folder in folders.items()
        },
        {gesture: {name: sorted((folder / name).iterdir()) for name in names} for gesture, folder in folders.items()},
    )
