"""The captioning stage, one shard at a time."""

import os

from flytekit.types.directory import FlyteDirectory

from hand1000.config.caption_settings import CaptionSettings
from tasks.context import Artifact, TaskContext, cluster_task, run_cached, shard_range

SPLITS = ("train", "test")
ENDPOINT_KEY = "HAND1000_ENDPOINT_KEY"


@cluster_task()
def caption_images(
    dataset: FlyteDirectory,
    settings: CaptionSettings,
    base_model: str,
    shard: int,
    shards: int,
    run: str,
    root: str,
) -> Artifact:
    """Caption one shard of both splits and complete the captions: `train.jsonl` and `test.jsonl`."""
    return caption_shard(dataset, settings, base_model, shard, shards, run, root)


def caption_shard(
    dataset: FlyteDirectory, settings: CaptionSettings, base_model: str, shard: int, shards: int, run: str, root: str
) -> FlyteDirectory:
    from hand1000.captions.records import write_caption_records
    from hand1000.data.captioning import CaptioningStage
    from hand1000.data.imageset import read_image_set

    stage = CaptioningStage(settings, base_model, os.environ.get(ENDPOINT_KEY, ""))

    def build(work: TaskContext) -> None:
        for split in SPLITS:
            folder = work.read(dataset) / split
            records = read_image_set(folder)
            part = [records[index] for index in shard_range(len(records), 1, shard, shards)]
            finished = stage.caption_records(folder, part, work.store, work.report)
            write_caption_records(work.out / f"{split}.jsonl", finished)

    return run_cached(
        "caption_images",
        root=root,
        run=run,
        build=build,
        label=f"{settings.captioner.kind} shard {shard + 1} of {shards}",
        inputs={"dataset": dataset, "stage": stage.cache_key_fields(), "shard": shard, "shards": shards},
    )
