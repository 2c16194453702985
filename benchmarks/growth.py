"""Time and memory of each stage for more and more images: `python -m benchmarks.growth [--items 10000]`.

Each stage is the workflow's own task with the small base model. It runs in a process of its own, forked from one that
has imported everything, so that the time is that of the work and the peak of memory that of one stage. The settings are
the demo's with as little work for an image as still passes through every part: one step for its embedding, one step of
the fusion and of Stage III for 32 images, two denoising steps for a generated image. Prints a Markdown table.
"""

import argparse
import importlib
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

STAGES = {
    "prepare_data": "crop and store",
    "caption_images": "complete the captions",
    "find_hands": "find the hands",
    "encode_dataset": "encode",
    "train_fusion": "Stage II, fusion",
    "optimize_embeddings": "Stage II, embeddings",
    "train_unet": "Stage III",
    "generate_base": "draw",
    "extract_real_features": "features of the data",
    "evaluate": "features and metrics",
}
"""The tasks that are measured, with their names in table and plot."""

# In the order of the workflow; those that are not measured have little to do here.
_ORDER = (
    ("tasks.prepare_data", "prepare_data"),
    ("tasks.build_dataset", "caption_images"),
    ("tasks.stage1", "find_hands"),
    ("tasks.stage1", "compute_gesture_feature"),
    ("tasks.stage2", "encode_dataset"),
    ("tasks.stage2", "train_fusion"),
    ("tasks.stage2", "optimize_embeddings"),
    ("tasks.stage3", "generate_class_images"),
    ("tasks.stage3", "train_unet"),
    ("tasks.generation", "generate_base"),
    ("tasks.generation", "generate_general"),
    ("tasks.generation", "generate_export"),
    ("tasks.evaluation", "extract_real_features"),
    ("tasks.evaluation", "evaluate"),
)
DEFAULT_ITEMS = 10_000
_DIVISORS = (40, 8, 1)
_BASE_MODEL = str(Path(__file__).parents[1] / "models/small-base")
_RENDERED, _RENDERED_SIZE = 24, 96
_BATCH = 16


@dataclass(frozen=True)
class Growth:
    """One stage at one size.

    Attributes:
        stage: Name of the task.
        items: Number of images.
        seconds: Its duration.
        cpu_seconds: Time of all processors on it, which other programs on the machine change less.
        peak_mb: Peak of its process's memory in MB (10^6 bytes), with 600 to 900 of imported libraries.
    """

    stage: str
    items: int
    seconds: float
    cpu_seconds: float
    peak_mb: float


def measure_growth(items: int, seconds: float, folder: Path) -> Iterator[Growth]:
    """Measure all stages with a fortieth, an eighth and all of `items` images.

    Args:
        items: The largest number of images.
        seconds: Time for everything; a last size that would take longer is reduced to what is expected to fit.
        folder: Empty folder for the images and artifacts; a gigabyte for 10,000.

    Raises:
        RuntimeError: A stage has failed.
    """
    started = time.monotonic()
    _import_all()
    pool = folder / "pool"
    _forked(lambda: _render(pool))
    last_items, last_seconds = 0, 0.0
    for divisor in _DIVISORS:
        count = max(_BATCH, items // divisor // _BATCH * _BATCH)
        left = seconds - (time.monotonic() - started)
        if last_seconds:
            count = min(count, int(0.9 * left / last_seconds * last_items) // _BATCH * _BATCH)
        if count <= 1.5 * last_items:
            return
        begun = time.monotonic()
        yield from _measure_size(count, pool, folder / str(count))
        last_items, last_seconds = count, time.monotonic() - begun


def _measure_size(count: int, pool: Path, folder: Path) -> Iterator[Growth]:
    source = folder / "source"
    _forked(lambda: _write_source(pool, source, count))
    artifacts: dict[str, str] = {}
    for module, stage in _ORDER:
        result = _forked(partial(_run_stage, module, stage, count, folder, artifacts))
        artifacts[stage] = result["artifact"]
        if stage in STAGES:
            yield Growth(stage, count, result["seconds"], result["cpu_seconds"], result["peak_mb"])


def _import_all() -> None:
    import workflows.train_gesture  # noqa: F401
    from hand1000.data.prepare import prepare_image_sets  # noqa: F401
    from hand1000.data.render.dataset import render_dataset  # noqa: F401
    from hand1000.evaluation.evaluator import Evaluator  # noqa: F401
    from hand1000.hands.detector import HandDetector  # noqa: F401
    from hand1000.paper.interleaved import train_interleaved  # noqa: F401
    from hand1000.pipelines.pipeline_hand1000 import load_pipeline  # noqa: F401
    from hand1000.training.stage2 import train_fusion  # noqa: F401
    from hand1000.training.stage3_io import setup_stage3  # noqa: F401


def _forked(function: Callable[[], dict[str, Any] | None]) -> dict[str, Any]:
    """Return what `function` returns in a forked process, which must be able to start threads of its own."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        status = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            with os.fdopen(writer, "w") as output:
                json.dump(function() or {}, output)
            status = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as stream:
        text = stream.read()
    if status := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise RuntimeError(f"benchmarks.growth: a stage ended with status {status}")
    return json.loads(text)


def _render(pool: Path) -> None:
    from hand1000.data.render.dataset import render_dataset

    render_dataset(pool, {"four": {"train": _RENDERED}}, seed=0, size=_RENDERED_SIZE, cache=pool / "cache")


def _write_source(pool: Path, source: Path, count: int) -> None:
    """Write `count` different images of as many people: the rendered ones with another brightness and other noise."""
    import numpy as np
    from PIL import Image

    annotations = json.loads((pool / "annotations/train/four.json").read_text())
    rendered = [
        (np.asarray(Image.open(pool / "four" / f"{stem}.jpg")).astype(np.float32), facts["bboxes"][0], facts["caption"])
        for stem, facts in sorted(annotations.items())
    ]
    source.mkdir(parents=True)
    rows = []
    for index in range(count + max(_BATCH, count // 10)):
        generator = np.random.default_rng(index)
        pixels, box, caption = rendered[index % len(rendered)]
        changed = pixels * generator.uniform(0.7, 1.2) + generator.normal(0, 8, pixels.shape)
        Image.fromarray(changed.clip(0, 255).astype(np.uint8)).save(source / f"{index}.jpg", quality=95)
        facts = {"file_name": f"{index}.jpg", "text": caption, "bbox": box, "user_id": f"p{index}"}
        rows.append(json.dumps(facts))
    (source / "metadata.jsonl").write_text("\n".join(rows))


def _settings(count: int) -> Any:
    from hand1000.config.settings import Settings, load_settings

    values = load_settings("demo").model_dump(mode="json")
    values["data"] |= {"test_images": max(_BATCH, count // 10)}
    values["stage2"] |= {
        "fusion_steps": max(count // (2 * _BATCH), 1),
        "fusion_batch_size": _BATCH,
        "embedding_steps": 1,
    }
    values["stage3"] |= {"steps": max(count // (2 * _BATCH), 1), "batch_size": _BATCH}
    values["generation"] |= {"num_images": count, "num_inference_steps": 2, "batch_size": 32}
    return Settings.model_validate(values)


def _run_stage(module: str, stage: str, count: int, folder: Path, artifacts: dict[str, str]) -> dict[str, Any]:
    from flytekit.types.directory import FlyteDirectory

    from tasks.context import RunContext, address

    task = getattr(importlib.import_module(module), stage)
    made = {name: FlyteDirectory(path, remote_directory=False) for name, path in artifacts.items()}
    settings = _settings(count)
    values: dict[str, Any] = {
        "gesture": "four",
        "images": 0 if stage in ("generate_general", "generate_export") else count,
        "other_gesture_images": 0,
        "data": str(folder / "source"),
        "base_model": _BASE_MODEL,
        "seed": 0,
        "shard": 0,
        "shards": 1,
        "keep_captions": True,
        "compute": settings.compute,
        "settings": _settings_of(stage, settings),
        "champion": "",
        "champion_images": [],
        "run": RunContext(root=str(folder / "root")),
        "dataset": made.get("prepare_data"),
        "captions": [made.get("caption_images")],
        "landmarks": [made.get("find_hands")],
        "feature": made.get("compute_gesture_feature"),
        "encoded": made.get("encode_dataset"),
        "fusion": made.get("train_fusion"),
        "embeddings": [made.get("optimize_embeddings")],
        "class_images": made.get("generate_class_images"),
        "model": made.get("train_unet"),
        "base_images": [made.get("generate_base")],
        "tuned_images": [made.get("generate_base")],
        "general_images": made.get("generate_general"),
        "export_images": made.get("generate_export"),
        "real_features": made.get("extract_real_features"),
    }
    inputs = {name: values[name] for name in task.python_interface.inputs}
    started = time.perf_counter()
    artifact = task(**inputs)
    seconds = time.perf_counter() - started
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(part.ru_utime + part.ru_stime for part in usage)
    return {
        "artifact": address(artifact),
        "seconds": seconds,
        "cpu_seconds": cpu,
        "peak_mb": usage[0].ru_maxrss * 1024 / 1e6,
    }


def _settings_of(stage: str, settings: Any) -> Any:
    """Return the part of the settings that a task has as its input `settings`."""
    parts = {
        "prepare_data": "data",
        "caption_images": "captions",
        "find_hands": "stage1",
        "compute_gesture_feature": "stage1",
        "train_fusion": "stage2",
        "optimize_embeddings": "stage2",
        "generate_base": "generation",
        "generate_general": "generation",
        "generate_export": "generation",
        "extract_real_features": "evaluation",
        "evaluate": "evaluation",
    }
    return getattr(settings, parts[stage]) if stage in parts else settings


def find_faults(rows: Sequence[Growth]) -> list[str]:
    """Name the stages whose time or memory grows faster than it should between the two largest sizes.

    Processor time may grow by 15 % more than the number of images, and memory by 0.05 MB an image, half of what an
    image's latents and embeddings take with the small model: they stay in their files.
    """
    faults = []
    for stage in STAGES:
        measured = sorted((row for row in rows if row.stage == stage), key=lambda row: row.items)[-2:]
        if len(measured) == 2:
            small, large = measured
            growth = large.items / small.items
            slower = large.cpu_seconds / small.cpu_seconds
            if slower > 1.15 * growth:
                faults.append(f"{STAGES[stage]}: {slower:.1f}x the time for {growth:.1f}x the images")
            more, items = large.peak_mb - small.peak_mb, large.items - small.items
            if more > 0.05 * items:
                faults.append(f"{STAGES[stage]}: {more:.0f} MB more for {items} more images")
    return faults


def format_growth(rows: Sequence[Growth]) -> str:
    """Return a Markdown table with a row for each stage: processor time of an image and peak memory at each size."""
    sizes = sorted({row.items for row in rows})
    cells = {
        (row.stage, row.items): f"{1000 * row.cpu_seconds / row.items:.1f} ms, {row.peak_mb:.0f} MB" for row in rows
    }
    lines = [f"| stage | {' | '.join(f'{size:,} images' for size in sizes)} |", "| --- " * (1 + len(sizes)) + "|"]
    for stage, name in STAGES.items():
        lines.append(f"| {name} | {' | '.join(cells.get((stage, size), '-') for size in sizes)} |")
    return "\n".join(lines)


def plot_growth(rows: Sequence[Growth], path: Path) -> None:
    """Draw the processor time and the peak memory of each stage over the number of images."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    axes: Any
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), constrained_layout=True)
    for stage, name in STAGES.items():
        measured = sorted((row for row in rows if row.stage == stage), key=lambda row: row.items)
        sizes = [row.items for row in measured]
        axes[0].plot(sizes, [row.cpu_seconds for row in measured], ".-", label=name)
        axes[1].plot(sizes, [row.peak_mb for row in measured], ".-", label=name)
    for axis, title in zip(axes, ("processor time, seconds", "peak memory, MB"), strict=True):
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("images", fontsize=9)
        axis.set_xlim(0)
        axis.set_ylim(0)
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=90, metadata={"Software": None})


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=DEFAULT_ITEMS, help=f"largest number ({DEFAULT_ITEMS})")
    parser.add_argument("--minutes", type=float, default=40, help="time for all stages and sizes together (40)")
    parser.add_argument("--folder", type=Path, help="empty folder for images and artifacts (default: a temporary one)")
    parser.add_argument("--out", type=Path, help="file for the measurements as JSON")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="hand1000-growth-") as scratch:
        for row in measure_growth(options.items, 60 * options.minutes, options.folder or Path(scratch)):
            rows.append(row)
            print(json.dumps(asdict(row)), flush=True)
            if options.out:
                options.out.write_text(json.dumps([asdict(row) for row in rows]))
    print(format_growth(rows))
    for fault in find_faults(rows):
        print(f"grows too fast: {fault}")


if __name__ == "__main__":
    main()
