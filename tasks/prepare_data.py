"""The images of the gestures, selected, cropped and split by person."""

from pathlib import Path
from typing import Any

from hand1000.config.data_settings import DataSettings
from tasks.context import Artifact, TaskContext, cluster_task, run_cached

SAMPLE = "sample"
"""The value of `data` that stands for rendered hands instead of a folder."""


@cluster_task()
def prepare_data(
    gesture: str, images: int, data: str, base_model: str, settings: DataSettings, seed: int, run: str, root: str
) -> Artifact:
    """Select `images` training pictures and the held-out ones of each gesture, at the base model's resolution.

    Args:
        gesture: HaGRID's name of it, or several with commas.
        images: training pictures of each at most.
        data: `sample`, a folder or `s3://` prefix in HaGRID's layout, or one of plain pictures.
        base_model: decides the resolution.
        settings: how many held-out pictures, and how many unreadable ones are borne.
        seed: of the draw.
        run: key of the MLflow run.
        root: the artifact root.
    """
    from hand1000.data.prepare import REPORT, prepare_image_sets
    from hand1000.data.render.dataset import RENDERER_VERSION, render_dataset
    from hand1000.data.selection import Selection, select_images, selection_facts
    from hand1000.gestures import parse_gestures
    from hand1000.hands.label_check import make_iou_check
    from hand1000.models.base_model import read_resolution
    from hand1000.storage.files import write_json
    from hand1000.storage.sources import open_source

    gestures = parse_gestures(gesture)
    resolution = read_resolution(base_model)
    counts: dict[str, Any] = {"num_train": images, "num_test": settings.test_images, "seed": seed}

    def select(address: str | Path) -> Selection:
        return select_images(open_source(address), gestures, filters=settings.filters, **counts)

    def sample(work: TaskContext) -> Path:
        folder = work.out.with_name("sample")
        parts = {"train": images, "test": settings.test_images}
        render_dataset(folder, dict.fromkeys(gestures, parts), seed=seed, size=resolution, progress=work.report)
        return folder

    source: Any = f"rendered by version {RENDERER_VERSION}"
    if data != SAMPLE:
        selection = select(data)
        source = selection_facts(selection)

    def build(work: TaskContext) -> None:
        chosen = select(sample(work)) if data == SAMPLE else selection
        with make_iou_check(settings.filters.min_detector_iou) as check:
            report = prepare_image_sets(
                chosen,
                work.out,
                resolution=resolution,
                max_unusable=settings.max_unusable,
                seed=seed,
                crop=settings.crop,
                check=check,
                progress=work.report,
            )
        write_json(work.out / REPORT, report.model_dump(mode="json"))

    return run_cached(
        "prepare_data",
        root=root,
        run=run,
        build=build,
        inputs={
            "gesture": gesture,
            **counts,
            "source": source,
            "resolution": resolution,
            "max_unusable": settings.max_unusable,
            "crop": settings.crop,
            "filters": settings.filters,
        },
    )
