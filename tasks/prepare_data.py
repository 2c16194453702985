"""The images of the gestures, selected, cropped and split by person."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hand1000.config.data_settings import DataSettings
from hand1000.gestures import parse_gestures
from hand1000.models.base_model import read_resolution
from hand1000.storage.files import read_json, write_json
from tasks.context import Artifact, RunContext, TaskContext, TaskResult
from tasks.decorators import artifact_task

if TYPE_CHECKING:
    from hand1000.storage.exclusions import Exclusions

MAX_TAG_LENGTH = 5000
"""MLflow truncates longer tags."""

SAMPLE = "sample"
"""The value of `data` that asks for rendered hands instead of a folder."""


def select_source(run: RunContext, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The selected images, whose names, versions and labels decide; rendered ones are selected once they are there.

    The exclusion list of the root decides too, unless it is empty.
    """
    from hand1000.data.render.dataset import RENDERER_VERSION
    from hand1000.storage.exclusions import read_exclusions

    exclusions = read_exclusions(run.open_store().backend)
    loaded = {"exclusions": exclusions} if exclusions else {}
    if inputs["data"] == SAMPLE:
        return {"source": f"rendered by version {RENDERER_VERSION}", **loaded}
    arguments = {name: inputs[name] for name in ("gesture", "images", "settings", "seed")}
    return {"source": _select(inputs["data"], **arguments, exclusions=exclusions), **loaded}


def _select(
    source: Any, gesture: str, images: int, settings: DataSettings, seed: int, exclusions: "Exclusions | None"
) -> Any:
    from hand1000.data.selection import ImageFilter, select_images
    from hand1000.data.sources.opening import open_dataset

    return select_images(
        open_dataset(source),
        parse_gestures(gesture),
        filters=ImageFilter(settings.filters, exclusions),
        num_train=images,
        num_test=settings.test_images,
        seed=seed,
        bbox_format=settings.bbox_format,
    )


def report_preparation(result: TaskResult) -> Artifact:
    """Print what of the source is not used, and log it to the MLflow run, also when an earlier run prepared it."""
    from hand1000.data.prepare import REPORT, PreparationReport

    report = PreparationReport.model_validate(read_json(result.folder / REPORT))
    if lines := report.problem_lines():
        print("\n".join(["", "not used of the data:", *(f"  {line}" for line in lines)]), flush=True)
    if lines and result.run.run_id and not result.run.find_recorded():
        recorder = result.run.open_recorder()
        recorder.log_metrics(report.problem_counts())
        recorder.set_tags({"hand1000.data_problems": "; ".join(lines)[:MAX_TAG_LENGTH]})
        recorder.log_file(result.folder / REPORT, "data")
    return result.artifact


@artifact_task(
    load=select_source,
    finish=report_preparation,
    excluded=("data",),
    key_by={"base_model": read_resolution},
    flyte_cached=False,
)
def prepare_data(
    context: TaskContext, gesture: str, images: int, data: str, base_model: str, settings: DataSettings, seed: int
) -> None:
    """Select the training and test images of each gesture and crop them to the base model's resolution."""
    from hand1000.data.prepare import REPORT, prepare_image_sets
    from hand1000.data.render.dataset import render_dataset
    from hand1000.hands.detection import make_iou_check

    resolution = read_resolution(base_model)
    selection = context.loaded["source"]
    if data == SAMPLE:
        rendered = context.scratch_dir("sample")
        counts = {"train": images, "test": settings.test_images}
        groups = dict.fromkeys(parse_gestures(gesture), counts)
        render_dataset(rendered, groups, seed=seed, size=resolution, on_progress=context.on_progress)
        selection = _select(rendered, gesture, images, settings, seed, context.loaded.get("exclusions"))
    with make_iou_check(settings.filters.min_detector_iou) as check:
        report = prepare_image_sets(
            selection,
            context.output_dir,
            settings,
            resolution=resolution,
            seed=seed,
            check=check,
            on_progress=context.on_progress,
        )
    write_json(context.output_dir / REPORT, report.model_dump(mode="json"))
