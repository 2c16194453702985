"""Evaluate each method on each gesture, and put all side by side."""

from flytekit.types.directory import FlyteDirectory

from hand1000.config.settings import EvaluationSettings
from hand1000.storage.files import read_json, write_json
from tasks.context import RunContext, TaskContext, address
from tasks.decorators import artifact_task, cluster_task, logger
from tasks.evaluation import load_evaluator
from tasks.start_run import end_runs

SAMPLES = 3
"""Number of each method's first images that are kept for the comparison page."""

_RESULT, _COST, _IMAGES = "result.json", "cost.json", "images"


@artifact_task(
    load=load_evaluator,
    excluded=("settings",),
    label=lambda inputs: f"{inputs['method']} seed {inputs['training_seed']}",
)
def evaluate_method(  # noqa: PLR0913 (Flyte signature)
    context: TaskContext,
    real_features: FlyteDirectory,
    images: list[FlyteDirectory],
    source: list[FlyteDirectory],
    trained: list[FlyteDirectory],
    embeddings: list[FlyteDirectory],
    method: str,
    training_seed: int,
    settings: EvaluationSettings,
    seed: int,
) -> None:
    """A cell of the comparison: `result.json` with metrics and cost, `cost.json`, and `images/`, the first ones.

    `source` are the images that the method edits. The cost includes the artifacts in `trained` and `embeddings`.
    """
    import shutil

    from hand1000.data.imageset import merge_image_sets, read_image_set
    from hand1000.evaluation.evaluator import RealFeatures
    from hand1000.evaluation.methods import MethodResult, read_cost, trains_itself

    def costs(artifacts: list[FlyteDirectory]) -> list[dict[str, object]]:
        return [context.run.open_store().provenance(address(artifact)) for artifact in artifacts]

    evaluator, real = context.loaded["evaluator"].load(), RealFeatures.load(context.download(real_features))
    folder = merge_image_sets(context.download_all(images), context.scratch_dir(method))
    features = evaluator.extract(folder, context.on_progress, store=context.run.open_store())
    metrics = evaluator.compute(real, features, seed=seed)
    training = costs([*trained, *embeddings])
    cost = read_cost(training, costs(images), costs(source), metrics.n_fake, trains=trains_itself(method))
    write_json(context.output_dir / _COST, cost)
    result = MethodResult(method=method, seed=training_seed, metrics=metrics, cost=cost)
    write_json(context.output_dir / _RESULT, result)
    (context.output_dir / _IMAGES).mkdir()
    for index, record in enumerate(read_image_set(folder)[:SAMPLES]):
        shutil.copy(folder / record.file_name, context.output_dir / _IMAGES / f"{index}.png")


@cluster_task()
def report_progress(cells: dict[str, list[FlyteDirectory]], left: dict[str, int], root: str) -> None:
    """Log how many cells of the comparison are done, and how long the others may take.

    `cells` are those of each method so far, and `left` the number of the others.
    """
    from hand1000.evaluation.methods import Cost, estimate_remaining

    context = RunContext(root=root)
    store = context.open_store()
    costs = {
        method: [Cost.model_validate(read_json(store.fetch(address(cell)) / _COST)).own_seconds for cell in artifacts]
        for method, artifacts in cells.items()
    }
    done, total = sum(map(len, cells.values())), sum(map(len, cells.values())) + sum(left.values())
    logger.info("compare_methods: cell %d of %d done, %s", done, total, estimate_remaining(costs, left))


@artifact_task(deck="comparison.html", summary="tables.md", excluded=("runs",), finish=end_runs)
def write_comparison(context: TaskContext, cells: dict[str, list[FlyteDirectory]], runs: list[RunContext]) -> None:
    """`comparison.html` with the tables and the images, and each of them as a file of its own; ends all `runs`.

    `cells` are the artifacts of `evaluate_method` by gesture.
    """
    from hand1000.evaluation.methods import MethodResult, group_results
    from hand1000.reports.comparison import write_comparison

    results, images = {}, {}
    for gesture, artifacts in cells.items():
        folders = [context.download(artifact) for artifact in artifacts]
        read = [MethodResult.model_validate(read_json(folder / _RESULT)) for folder in folders]
        results[gesture] = group_results(read)
        # Those of the first seed: a later one is not in the page.
        images[gesture] = {
            name: next(
                sorted((folder / _IMAGES).iterdir())
                for folder, result in zip(folders, read, strict=True)
                if result == trainings[0]
            )
            for name, trainings in results[gesture].items()
        }
    write_comparison(context.output_dir, results, images)
