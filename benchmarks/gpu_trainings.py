"""Many trainings of the method comparison on one GPU, for images that are evaluated on another machine.

    .venv/bin/python -m benchmarks.gpu_trainings prepare FOLDER [--config FILE] [--root artifacts] [--base FOLDER]
    python -m benchmarks.gpu_trainings train FOLDER OUT [--seeds 3000,4000,5000] [--processes 6] [--seconds 300]
    .venv/bin/python -m benchmarks.gpu_trainings evaluate OUT RESULT [--config FILE] [--root artifacts] [--base FOLDER]

`prepare` makes what the trainings read (latents, text embeddings, hand features, prompts) with the tasks of the
workflow. `train` needs neither MediaPipe nor Flyte nor MLflow: it trains Stages II and III with this package's own
trainers, and draws the test images. The cells are taken in turn, all gestures with the first seed first; what is not
begun when the seconds are over is left out and named. OUT has one zip file per process with the images of its finished
cells. `evaluate` writes the comparison page of these cells. The arithmetic of a GPU differs from a CPU's, so that the
images are not those of the workflow with the same seeds.

With `--base`, the base model is still to be trained (`benchmarks.gpu_base`), and FOLDER is its outline: `prepare`
then leaves the encoding to `train --base`, which takes the trained model.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hand1000.config.comparison import ComparisonSettings
    from hand1000.config.settings import Settings
    from hand1000.data.imageset import ImageRecord
    from hand1000.evaluation.methods import MethodResult
    from hand1000.pipelines.pipeline_hand1000 import Hand1000Pipeline
    from hand1000.training.encoded_dataset import EncodedDataset

METHODS = ("hand1000", "sd_tuned", "sd")
"""The methods without an edit of single images, the most important first."""

INPUTS, PROMPTS = "inputs.json", "prompts"


def prepare(folder: Path, inputs: dict[str, Any], root: str, encode: bool) -> None:
    """Write the inputs of the trainings: a folder per gesture, encoded or with the images, and the settings."""
    from hand1000.data.captioning import read_captioned_split
    from hand1000.data.imageset import write_metadata
    from hand1000.gestures import parse_gestures
    from tasks.context import address

    folder.mkdir(parents=True, exist_ok=True)
    for gesture in parse_gestures(inputs["gestures"]):
        data = prepare_gesture(inputs, gesture, root)
        store = data["run"].open_store()
        dataset, captions = (store.fetch(address(data[name])) for name in ("dataset", "captions"))
        for name in ("encoded", "feature") if encode else ("feature",):
            shutil.copytree(store.fetch(address(data[name])), folder / gesture / name, dirs_exist_ok=True)
        if not encode:
            shutil.copytree(dataset / "train", folder / gesture / "train", dirs_exist_ok=True)
            write_metadata(folder / gesture / "train", read_captioned_split(dataset, "train", [captions]))
        (folder / gesture / PROMPTS).mkdir(exist_ok=True)
        write_metadata(folder / gesture / PROMPTS, read_captioned_split(dataset, "test", [captions]))
    (folder / INPUTS).write_text(json.dumps(inputs))


def prepare_gesture(inputs: dict[str, Any], gesture: str, root: str) -> dict[str, Any]:
    """The artifacts of one gesture that do not depend on a training, made by the workflow's tasks or recalled."""
    from hand1000.config.comparison import ComparisonSettings
    from tasks.build_dataset import caption_images
    from tasks.context import RunContext
    from tasks.evaluation import extract_real_features
    from tasks.prepare_data import prepare_data
    from tasks.stage1 import compute_gesture_feature, find_hands
    from tasks.stage2 import encode_dataset

    common, base_model = ComparisonSettings.model_validate(inputs["settings"]).common, inputs["base_model"]
    run = RunContext(root=root)
    source = {"gesture": gesture, "images": inputs["images"], "data": inputs["data"], "base_model": base_model}
    dataset = prepare_data(**source, settings=common.data, seed=common.seed, run=run)
    whole: dict[str, Any] = {"dataset": dataset, "shard": 0, "shards": 1, "run": run}
    captions = caption_images(settings=common.captions, base_model=base_model, keep_captions=True, **whole)
    landmarks = find_hands(settings=common.stage1, **whole)
    images = {"dataset": dataset, "captions": [captions], "run": run}
    return {
        "run": run,
        "dataset": dataset,
        "captions": captions,
        "feature": compute_gesture_feature(
            landmarks=[landmarks], dataset=dataset, gesture=gesture, settings=common.stage1, run=run
        ),
        "encoded": encode_dataset(base_model=base_model, **images),
        "real": extract_real_features(settings=common.evaluation, **images),
    }


def train(options: argparse.Namespace) -> int:
    """Train and draw all cells in several processes; the exit status is 1 if one of them failed."""
    options.out.mkdir(parents=True, exist_ok=True)
    command = [*sys.orig_argv, "--end", str(time.time() + options.seconds)]
    workers = [subprocess.Popen([*command, "--part", str(part)]) for part in range(options.processes)]
    return int(any([worker.wait() for worker in workers]))


def list_cells(gestures: Sequence[str], seeds: Sequence[int]) -> list[tuple[int, str, str]]:
    """The cells (seed, method, gesture) in the order of their importance; the base model draws with the first seed."""
    return [
        (seed, method, gesture)
        for seed, method, gesture in product(seeds, METHODS, gestures)
        if method != "sd" or seed == seeds[0]
    ]


def work(options: argparse.Namespace) -> None:
    """Train and draw every so many cells one after the other."""
    import torch

    from hand1000.config.comparison import ComparisonSettings, parse_seeds

    # The processes share the cores, and a GPU needs little of them.
    torch.set_num_threads(max(1, torch.get_num_threads() // options.processes))
    inputs = json.loads((options.folder / INPUTS).read_text())
    settings = ComparisonSettings.model_validate(inputs["settings"])
    seeds = parse_seeds(options.seeds, settings.common.generation.num_images)
    cells = list_cells(inputs["gestures"].split(","), seeds)
    for seed, method, gesture in cells[options.part :: options.processes]:
        name, started = f"{gesture}/{method}/{seed}", time.time()
        if started > options.end:
            print(f"{name}: left out, the time is used up", flush=True)
            continue
        with tempfile.TemporaryDirectory() as folder:
            scratch = Path(folder)
            data = options.folder / gesture
            base_model = options.base or inputs["base_model"]
            pipeline, trained = build_model(data, base_model, settings, (method, seed), scratch)
            until_model = time.time() - started
            draw(pipeline, read_prompts(data), trained, seed, scratch / "images")
            add_images(options.out / f"images-{options.part}.zip", scratch / "images", name)
        print(f"{name}: {until_model:.1f} s until the model, {time.time() - started:.1f} s in all", flush=True)


def build_model(
    data_folder: Path, base_model: str, settings: "ComparisonSettings", cell: tuple[str, int], scratch: Path
) -> "tuple[Hand1000Pipeline, Settings]":
    """The model of a cell (method, seed), trained by the package's own trainers, and its settings."""
    from hand1000.config.comparison import plain_finetuning
    from hand1000.core.devices import best_device
    from hand1000.hands.poses import HandPoses
    from hand1000.hands.stage1 import load_features
    from hand1000.models.base_model import load_base_model
    from hand1000.models.fusion import FusedEmbeddings, gesture_indices
    from hand1000.pipelines.pipeline_hand1000 import build_pipeline, load_pipeline
    from hand1000.training.context import TrainContext
    from hand1000.training.precision import weight_dtype
    from hand1000.training.stage2 import optimize_all_embeddings, train_fusion
    from hand1000.training.stage3_io import Stage3Inputs, load_base_for_training, save_pipeline, setup_stage3

    method, seed = cell
    device = best_device()
    common = settings.common.with_overrides({"seed": seed, "compute.cuda_graphs": device.type == "cuda"})
    if method == "sd":
        sampler = common.generation.base_model_variant().sampler_defaults()
        return build_pipeline(load_base_model(base_model, device), **sampler), common
    trained = plain_finetuning(common) if method == "sd_tuned" else common
    context = TrainContext(seed=seed, compute=trained.compute)
    data = read_encoded(data_folder, base_model)
    features = {feature.gesture: feature.mean_tensor() for feature in load_features(data_folder / "feature")}
    poses = HandPoses.load(data_folder / "feature").select(data.file_names)
    frozen = load_base_model(base_model, device, denoiser_dtype=weight_dtype(trained.compute), denoiser_only=True)
    fusion, _ = train_fusion(frozen, data, features, trained.stage2, context, poses=poses)
    ids = gesture_indices(fusion, data.gestures)
    start = FusedEmbeddings(data.conditioning.tokens, fusion, trained.stage2.lambda_, ids, poses.tensor())
    conditioning = data.conditioning.with_tokens(start)
    embeddings, _ = optimize_all_embeddings(
        frozen, data.latents, conditioning, data.file_names, trained.stage2, context
    )
    base = load_base_for_training(base_model, device, trained)
    weights, _ = setup_stage3(base, Stage3Inputs(data, fusion, embeddings), trained, context, scratch).train()
    save_pipeline(load_base_model(base_model), weights, fusion, trained, scratch / "model")
    return load_pipeline(scratch / "model"), trained


def read_encoded(data_folder: Path, base_model: str) -> "EncodedDataset":
    """The encoded training images; the first training encodes them where the base model was not there before."""
    from hand1000.core.devices import best_device
    from hand1000.data.imageset import read_image_set
    from hand1000.models.base_model import load_base_model
    from hand1000.training.encoded_dataset import EncodedDataset, encode_dataset

    if (data_folder / "encoded").is_dir():
        return EncodedDataset.load(data_folder / "encoded")
    base = load_base_model(base_model, best_device())
    return encode_dataset(base, data_folder / "train", read_image_set(data_folder / "train"))


def read_prompts(data_folder: Path) -> "list[ImageRecord]":
    """The records of the test images, which are not there themselves."""
    from hand1000.data.imageset import METADATA, ImageRecord

    lines = (data_folder / PROMPTS / METADATA).read_text().splitlines()
    return [ImageRecord.model_validate_json(line) for line in lines]


def draw(
    pipeline: "Hand1000Pipeline", prompts: "Sequence[ImageRecord]", settings: "Settings", seed: int, folder: Path
) -> None:
    """Draw the image set of a cell."""
    from hand1000.core.progress import NullCheckpointStore, noop_callback
    from hand1000.data.imageset import write_metadata
    from hand1000.pipelines.generation import GenerationRequest, generate_to_dir, pipeline_generator, plan_generation

    folder.mkdir()
    records = plan_generation(prompts, settings.generation.num_images, seed)
    generate_to_dir(
        pipeline_generator(pipeline),
        [GenerationRequest.from_record(record) for record in records],
        folder,
        batch_size=settings.generation.batch_size,
        checkpoint=NullCheckpointStore(),
        on_progress=noop_callback,
    )
    write_metadata(folder, records)


def evaluate(inputs: dict[str, Any], out: Path, result: Path, root: str) -> None:
    """Evaluate the images of all cells, and write the comparison page of those that all gestures have."""
    from hand1000.config.comparison import ComparisonSettings
    from hand1000.evaluation.evaluator import Evaluator, RealFeatures
    from hand1000.evaluation.methods import group_results
    from hand1000.reports.comparison import write_comparison
    from tasks.context import address

    settings = ComparisonSettings.model_validate(inputs["settings"]).common
    evaluator = Evaluator.from_settings(settings.evaluation)
    images, cells = result / "images", list_images(out, result / "images")
    results, samples = {}, {}
    for gesture in dict.fromkeys(gesture for gesture, _, _ in cells):
        data = prepare_gesture(inputs, gesture, root)
        real = RealFeatures.load(data["run"].open_store().fetch(address(data["real"])))
        of_gesture = [(method, seed) for name, method, seed in cells if name == gesture]
        rows = [
            evaluate_cell(evaluator, real, images / gesture / method / str(seed), (method, seed), settings.seed)
            for method, seed in of_gesture
        ]
        results[gesture] = group_results(rows)
        samples[gesture] = {
            name: sorted((images / gesture / name / str(rows[0].seed)).glob("*.png"))[:3]
            for name, rows in results[gesture].items()
        }
    write_comparison(result, results, samples)
    print((result / "tables.md").read_text())


def list_images(out: Path, images: Path) -> list[tuple[str, str, int]]:
    """Unpack the images; the cells (gesture, method, seed) of the methods and seeds that all gestures have."""
    for archive in sorted(out.glob("images-*.zip")):
        with zipfile.ZipFile(archive) as file:
            file.extractall(images)
    folders = sorted(images.glob("*/*/*"))
    found = [(folder.parts[-3], folder.parts[-2], int(folder.name)) for folder in folders if folder.is_dir()]
    gestures = {gesture for gesture, _, _ in found}
    return [
        (gesture, method, seed)
        for gesture, method, seed in found
        if all((name, method, seed) in found for name in gestures)
    ]


def evaluate_cell(evaluator: Any, real: Any, folder: Path, cell: tuple[str, int], seed: int) -> "MethodResult":
    """The result of one cell; its cost on the GPU is in the log of the training."""
    from hand1000.evaluation.methods import Cost, MethodResult

    metrics = evaluator.compute(real, evaluator.extract(folder), seed=seed)
    method, training_seed = cell
    print(f"{folder}: gesture accuracy {metrics.gesture_accuracy}", flush=True)
    cost = Cost(train_seconds=0, image_seconds=0, peak_bytes=0, own_seconds=0)
    return MethodResult(method=method, seed=training_seed, metrics=metrics, cost=cost)


def read_inputs(config: Path, base_model: str) -> dict[str, Any]:
    """The inputs of the comparison, with all settings, and perhaps another base model."""
    import yaml

    from hand1000.config.comparison import ComparisonSettings

    inputs = yaml.safe_load(config.read_text())
    settings = ComparisonSettings.model_validate(inputs["settings"])
    inputs |= {"settings": settings.model_dump(mode="json")}
    return inputs | ({"base_model": base_model} if base_model else {})


def add_images(archive: Path, images: Path, name: str) -> None:
    """Add an image set to a zip file, which is complete at any time: a run that is cut off keeps its finished cells."""
    draft = archive.with_suffix(".draft")
    if archive.exists():
        shutil.copy(archive, draft)
    with zipfile.ZipFile(draft, "a") as file:
        for image in sorted(images.iterdir()):
            file.write(image, f"{name}/{image.name}")
    draft.replace(archive)


def main() -> int:
    """Run one of the commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, folders in (("prepare", ["folder"]), ("train", ["folder", "out"]), ("evaluate", ["out", "result"])):
        command = commands.add_parser(name)
        for folder in folders:
            command.add_argument(folder, type=Path)
        command.add_argument("--base", default="", help="base model instead of the one that the settings name")
        if name == "train":
            command.add_argument("--seeds", default="3000,4000,5000")
            command.add_argument("--processes", type=int, default=6)
            command.add_argument("--seconds", type=float, default=300.0, help="no cell begins later")
            command.add_argument("--part", type=int, help=argparse.SUPPRESS)
            command.add_argument("--end", type=float, help=argparse.SUPPRESS)
        else:
            command.add_argument("--root", default="artifacts")
            command.add_argument("--config", type=Path, default=Path("workflows/configs/compare.yaml"))
    options = parser.parse_args()
    if options.command == "prepare":
        prepare(options.folder, read_inputs(options.config, options.base), options.root, encode=not options.base)
    elif options.command == "evaluate":
        evaluate(read_inputs(options.config, options.base), options.out, options.result, options.root)
    elif options.part is None:
        return train(options)
    else:
        work(options)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
