"""Caption, complete, measure and publish a data set."""

from pathlib import Path

from flytekit.types.directory import FlyteDirectory

from hand1000.config.caption_settings import CaptionSettings, DatasetSettings
from tasks.captioning import SPLITS, caption_shard
from tasks.context import Artifact, TaskContext, cluster_task, run_cached

SHOWN = 24


@cluster_task(cache=False)
def job_indices(gesture: str, settings: DatasetSettings, shards: int) -> list[int]:
    """A job a captioner and shard; says at once if `gesture` is not one of HaGRID's."""
    from hand1000.gestures import gesture_phrase

    gesture_phrase(gesture)
    return list(range(len(settings.captioners) * shards))


@cluster_task(ignored_inputs=("root",))
def caption_job(
    dataset: FlyteDirectory, settings: DatasetSettings, base_model: str, job: int, shards: int, root: str
) -> Artifact:
    """Caption one shard of both splits with one of the captioners; see `caption_images`."""
    chosen = CaptionSettings(captioner=settings.captioners[job // shards], completion=settings.completion)
    return caption_shard(dataset, chosen, base_model, job % shards, shards, "", root)


@cluster_task(ignored_inputs=("root",))
def publish(
    dataset: FlyteDirectory,
    captions: list[FlyteDirectory],
    gesture: str,
    settings: DatasetSettings,
    shards: int,
    root: str,
) -> Artifact:
    """The data set with its card, and beside it `quality.json` and `captions.html`, every captioner side by side."""
    from hand1000.captions.metrics import Clip

    clip = Clip(settings.clip) if settings.clip else None

    def build(work: TaskContext) -> None:
        from hand1000.captions.metrics import compute_caption_metrics
        from hand1000.captions.records import read_caption_records
        from hand1000.data.publish import publish_data_set
        from hand1000.reports.captions import render_captions_page
        from hand1000.storage.files import write_json, write_text

        prepared = work.read(dataset)
        folders = [work.read(part) for part in captions]
        by_captioner = [
            {split: read_caption_records([folder / f"{split}.jsonl" for folder in folders[start : start + shards]])
             for split in SPLITS}
            for start in range(0, len(folders), shards)
        ]  # fmt: skip
        quality = []
        for lines in by_captioner:
            named: list[tuple[Path, str, str]] = [
                (prepared / split / name, line.text, line.captioner)
                for split in SPLITS
                for name, line in sorted(lines[split].items())
            ]
            quality.append(
                compute_caption_metrics(
                    [path for path, _, _ in named],
                    [text for _, text, _ in named],
                    gesture,
                    captioner=named[0][2],
                    clip=clip,
                    progress=work.report,
                )
            )
        publish_data_set(prepared, by_captioner[0], quality, work.out)
        write_json(work.out / "quality.json", [one.model_dump(mode="json") for one in quality])
        shown = sorted(by_captioner[0]["train"])[:SHOWN]
        rows = [(prepared / "train" / name, [lines["train"][name] for lines in by_captioner]) for name in shown]
        write_text(work.out / "captions.html", render_captions_page(gesture, quality, rows))

    return run_cached(
        "publish",
        root=root,
        run="",
        build=build,
        inputs={"dataset": dataset, "captions": captions, "gesture": gesture, "clip": clip.name if clip else None},
    )
