"""A dataset of one gesture: selected, cropped, captioned, completed, measured and published.

pyflyte run workflows/build_dataset.py build_dataset --inputs-file workflows/configs/dataset.yaml
"""

from functools import partial

from flytekit import map_task, workflow

from hand1000.config.caption_settings import DatasetSettings
from tasks.build_dataset import caption_images, captioning_jobs, publish
from tasks.context import Artifact
from tasks.prepare_data import prepare_data
from tasks.start_run import untracked_run


@workflow
def build_dataset(
    gesture: str, images: int, data: str, base_model: str, root: str, shards: int, settings: DatasetSettings
) -> Artifact:
    """Build a dataset that `train_gesture` takes as its `data`.

    Args:
        gesture: HaGRID's name of the gesture, such as `four`.
        images: Number of training images; the paper uses 1,000.
        data: `sample` for rendered hands, or a folder or `s3://` prefix of images.
        base_model: The model that decides the resolution and how many tokens a caption may have.
        root: The artifact root, a folder or `s3://bucket/prefix`.
        shards: Number of parts of each captioner's work; it does not change the result.
        settings: The captioners, the completion and the captions' metrics.
    """
    run = untracked_run(root=root)
    jobs = captioning_jobs(gesture=gesture, settings=settings, shards=shards)
    source = {"gesture": gesture, "images": images, "data": data, "base_model": base_model}
    dataset = prepare_data(**source, settings=settings.data, seed=settings.seed, run=run)
    captioning = partial(caption_images, dataset=dataset, base_model=base_model, keep_captions=False, shards=shards)
    captions = map_task(partial(captioning, run=run))(settings=jobs.settings, shard=jobs.shard)
    return publish(dataset=dataset, captions=captions, gesture=gesture, settings=settings, shards=shards, run=run)
