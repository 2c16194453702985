"""The paper's comparison: six methods on the same prompts and images, each trained several times.

pyflyte run workflows/compare_methods.py compare_methods --inputs-file workflows/configs/compare.yaml

A cell of the comparison is one method on one gesture with one training. A repeated run recalls finished cells. All
gestures have their first training before any has a second, so that `--seeds` with one seed writes a page much earlier.
"""

from functools import cached_property, partial
from typing import Any

from flytekit import dynamic, map_task, workflow
from flytekit.types.directory import FlyteDirectory

from hand1000.config.comparison import (
    SOURCE_METHOD,
    TRAINED_METHODS,
    ComparisonSettings,
    parse_methods,
    parse_seeds,
    plain_finetuning,
)
from hand1000.config.settings import Settings
from hand1000.gestures import parse_gestures
from hand1000.models.backbone import required_features
from hand1000.models.base_model import check_features
from tasks.baselines import imagic_base, imagic_tuned, refine_hands
from tasks.build_dataset import caption_images
from tasks.comparison import evaluate_method, report_progress, write_comparison
from tasks.context import RunContext
from tasks.decorators import is_local
from tasks.evaluation import extract_real_features
from tasks.generation import generate_base, generate_tuned
from tasks.prepare_data import prepare_data
from tasks.resources import resources_table
from tasks.start_run import start_run
from workflows.train_stages import TunedModel, train_stages


class GestureCells:
    """One gesture's part of the graph with one training's seed; each node is made when it is first needed.

    The seed decides the trainings and the noise that images are drawn from. The data set, with the test prompts and the
    real images, is that of `settings.common.seed`, the same for all trainings.
    """

    def __init__(self, source: dict[str, Any], root: str, shards: int, settings: ComparisonSettings, seed: int) -> None:
        """Prepare the part of the graph; `source` are the inputs of `prepare_data`."""
        self.source, self.base_model, self.root = source, source["base_model"], root
        self.shard, self.settings, self.seed = list(range(shards)), settings, seed
        self.common = settings.common.with_overrides({"seed": seed})
        self.plain = plain_finetuning(self.common)
        self.runs: list[RunContext] = []

    def evaluate(self, method: str) -> FlyteDirectory:
        """The cell of a method."""
        return evaluate_method(
            real_features=self.real_features,
            images=getattr(self, method),
            source=getattr(self, SOURCE_METHOD[method]) if method in SOURCE_METHOD else [],
            trained=self._find_trained(method),
            embeddings=self.hand1000_model.embeddings if method == "hand1000" else [],
            method=method,
            training_seed=self.seed,
            settings=self.common.evaluation,
            seed=self.settings.common.seed,
            run=self.plain_run if method in ("sd_tuned", "sd_tuned_imagic") else self.run,
        )

    # What methods have in common. Each training has a run of its own in MLflow, as their stages have the same names.

    @cached_property
    def run(self) -> RunContext:
        """The run of Hand1000's training, and of the methods without one."""
        return self._start_run(self.common)

    @cached_property
    def plain_run(self) -> RunContext:
        """The run of the training without the gesture."""
        return self._start_run(self.plain)

    @cached_property
    def dataset(self) -> FlyteDirectory:
        """The images."""
        return self._prepare_data(self.run)

    @cached_property
    def captions(self) -> list[FlyteDirectory]:
        """The captions, by shards."""
        captioning = {"settings": self.common.captions, "base_model": self.base_model, "keep_captions": True}
        return self._map(caption_images, dataset=self.dataset, **captioning, **self._sharded)

    @cached_property
    def real_features(self) -> FlyteDirectory:
        """The features of the real images."""
        images = {"dataset": self.dataset, "captions": self.captions}
        return extract_real_features(**images, settings=self.common.evaluation, run=self.run)

    @cached_property
    def hand1000_model(self) -> TunedModel:
        """The model of all three stages."""
        return self._train(self.common, self.run)

    @cached_property
    def plain_model(self) -> TunedModel:
        """The model of plain fine-tuning."""
        return self._train(self.plain, self.plain_run)

    # The images of each method, by shards. Those that generate from a prompt and a seed:

    @cached_property
    def sd(self) -> list[FlyteDirectory]:
        """Images of the base model."""
        prompts = self._prompts | {"settings": self.common.generation, "run": self.run}
        return self._map(generate_base, base_model=self.base_model, **prompts)

    @cached_property
    def sd_tuned(self) -> list[FlyteDirectory]:
        """Images of plain fine-tuning."""
        prompts = self._prompts | {"settings": self.plain.generation, "run": self.plain_run}
        return self._map(generate_tuned, model=self.plain_model.model, **prompts)

    @cached_property
    def hand1000(self) -> list[FlyteDirectory]:
        """Images of Hand1000."""
        prompts = self._prompts | {"settings": self.common.generation, "run": self.run}
        return self._map(generate_tuned, model=self.hand1000_model.model, **prompts)

    # Those that edit another one's images:

    @cached_property
    def sd_imagic(self) -> list[FlyteDirectory]:
        """Images of the base model, edited by Imagic."""
        imagic = partial(imagic_base, base_model=self.base_model, run=self.run, **self._imagic)
        return map_task(imagic)(images=self.sd, shard=self.shard)

    @cached_property
    def sd_tuned_imagic(self) -> list[FlyteDirectory]:
        """Images of plain fine-tuning, edited by Imagic."""
        imagic = partial(imagic_tuned, model=self.plain_model.model, run=self.plain_run, **self._imagic)
        return map_task(imagic)(images=self.sd_tuned, shard=self.shard)

    @cached_property
    def sd_handrefiner(self) -> list[FlyteDirectory]:
        """Images of the base model, repaired by HandRefiner."""
        refiner: dict[str, Any] = {"base_model": self.base_model, "refiner": self.settings.hand_refiner}
        refine = partial(refine_hands, settings=self.common.generation, run=self.run, **refiner)
        return map_task(refine)(images=self.sd, shard=self.shard)

    @property
    def _sharded(self) -> dict[str, Any]:
        return {"shards": len(self.shard), "run": self.run}

    @property
    def _prompts(self) -> dict[str, Any]:
        return {"dataset": self.dataset, "captions": self.captions, "seed": self.seed, "shards": len(self.shard)}

    @property
    def _imagic(self) -> dict[str, Any]:
        settings = {"imagic": self.settings.imagic, "settings": self.plain.generation}
        return settings | {"compute": self.common.compute, "seed": self.seed}

    def _find_trained(self, method: str) -> list[FlyteDirectory]:
        if method == "hand1000":
            return [self.hand1000_model.fusion, self.hand1000_model.trained]
        return [self.plain_model.trained] if method in TRAINED_METHODS else []

    def _map(self, task: Any, **inputs: Any) -> list[FlyteDirectory]:
        return map_task(partial(task, **inputs))(shard=self.shard)

    def _prepare_data(self, run: RunContext) -> FlyteDirectory:
        return prepare_data(**self.source, settings=self.common.data, seed=self.settings.common.seed, run=run)

    def _start_run(self, settings: Settings) -> RunContext:
        dataset = self._prepare_data(RunContext(root=self.root))
        run = start_run(**self.source, settings=settings, root=self.root, dataset=dataset)
        self.runs.append(run)
        return run

    def _train(self, settings: Settings, run: RunContext) -> TunedModel:
        images = {"dataset": self.dataset, "captions": self.captions, "gesture": self.source["gesture"]}
        shards = {"shard": self.shard, "shards": len(self.shard)}
        return train_stages(**images, **shards, base_model=self.base_model, settings=settings, run=run)


@dynamic(**resources_table().pod_of("compare_all_gestures").options())
def compare_all_gestures(  # noqa: PLR0913 (Flyte signature)
    gestures: str,
    methods: str,
    seeds: str,
    images: int,
    data: str,
    base_model: str,
    root: str,
    shards: int,
    settings: ComparisonSettings,
) -> FlyteDirectory:
    """Evaluate every method on every gesture, the trained ones with each seed; put all side by side."""
    names, training_seeds = parse_methods(methods), parse_seeds(seeds, settings.common.generation.num_images)
    check_features(base_model, required_features(settings.common))
    if "sd_handrefiner" in names:
        check_features(settings.hand_refiner.inpainting_model or base_model, ["HandRefiner"])
    plan = [
        (seed, gesture, [name for name in names if seed == training_seeds[0] or name in TRAINED_METHODS])
        for seed in training_seeds
        for gesture in parse_gestures(gestures)
    ]
    left = {name: sum(name in methods_of_seed for _, _, methods_of_seed in plan) for name in names}
    by_gesture: dict[str, list[FlyteDirectory]] = {}
    by_method: dict[str, list[FlyteDirectory]] = {}
    runs: list[RunContext] = []
    for seed, gesture, methods_of_seed in plan:
        source = {"gesture": gesture, "images": images, "data": data, "base_model": base_model}
        cells = GestureCells(source, root, shards, settings, seed)
        for name in methods_of_seed:
            cell = cells.evaluate(name)
            by_gesture.setdefault(gesture, []).append(cell)
            by_method.setdefault(name, []).append(cell)
            left[name] -= 1
            # On a cluster this function only makes the graph; Flyte's console shows what is done.
            if is_local():
                report_progress(cells=by_method, left=left, root=root)
        runs += cells.runs
    return write_comparison(cells=by_gesture, runs=runs, run=RunContext(root=root))


@workflow
def compare_methods(  # noqa: PLR0913 (Flyte signature)
    gestures: str,
    methods: str,
    seeds: str,
    images: int,
    data: str,
    base_model: str,
    root: str,
    shards: int,
    settings: ComparisonSettings,
) -> FlyteDirectory:
    """Compare `methods` on each of `gestures`, such as `call,four,like`, with a training for each of `seeds`.

    The other inputs are those of `train_gesture`.

    Returns:
        The folder of `comparison.html`, `comparison.json`, `tables.md`, `images.png` and `differences.png`.
    """
    return compare_all_gestures(
        gestures=gestures,
        methods=methods,
        seeds=seeds,
        images=images,
        data=data,
        base_model=base_model,
        root=root,
        shards=shards,
        settings=settings,
    )
