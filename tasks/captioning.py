"""Captions of the images, a shard at a time."""

from flytekit.types.directory import FlyteDirectory

from tasks.context import Artifact, TaskContext, cluster_task, run_cached, shard_range

SPLITS = ("train", "test")


@cluster_task()
def caption_images(dataset: FlyteDirectory, shard: int, shards: int, run: str, root: str) -> Artifact:
    """Caption one shard of both splits: `train.jsonl` and `test.jsonl`."""
    from hand1000.captions.captioners import DatasetCaptioner, write_captions
    from hand1000.data.imageset import read_image_set

    captioner = DatasetCaptioner()

    def build(work: TaskContext) -> None:
        for split in SPLITS:
            folder = work.read(dataset) / split
            records = read_image_set(folder)
            part = [records[index] for index in shard_range(len(records), 1, shard, shards)]
            written = captioner.caption(
                [folder / record.file_name for record in part], [record.caption for record in part]
            )
            names = [record.file_name for record in part]
            write_captions(work.out / f"{split}.jsonl", dict(zip(names, written, strict=True)), captioner.name)
            work.report(len(part), len(part))

    return run_cached(
        "caption_images",
        root=root,
        run=run,
        build=build,
        label=f"shard {shard + 1} of {shards}",
        inputs={"dataset": dataset, "captioner": captioner.name, "shard": shard, "shards": shards},
    )
