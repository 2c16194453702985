"""A data set of one gesture: selected, cropped, captioned, completed, measured and published.

pyflyte run workflows/build_dataset.py build_dataset --inputs-file workflows/configs/dataset.yaml
"""

from functools import partial

from flytekit import map_task, workflow

from hand1000.config.caption_settings import DatasetSettings
from tasks.build_dataset import caption_job, job_indices, publish
from tasks.context import Artifact
from tasks.prepare_data import prepare_data


@workflow
def build_dataset(
    gesture: str, images: int, data: str, base_model: str, root: str, shards: int, settings: DatasetSettings
) -> Artifact:
    """Build a data set that `train_gesture` takes as its `data`.

    Args:
        gesture: HaGRID's name of the gesture, such as `four`.
        images: training images; the paper uses 1,000.
        data: `sample` for rendered hands, or a folder or `s3://` prefix of images.
        base_model: decides the resolution and how many tokens a caption may have.
        root: the artifact root, a folder or `s3://bucket/prefix`.
        shards: how many parts each captioner's work is cut into; it does not change the result.
        settings: the captioners, the completion and what measures them.
    """
    job = job_indices(gesture=gesture, settings=settings, shards=shards)
    dataset = prepare_data(
        gesture=gesture,
        images=images,
        data=data,
        base_model=base_model,
        settings=settings.data,
        seed=settings.seed,
        run="",
        root=root,
    )
    captions = map_task(
        partial(caption_job, dataset=dataset, settings=settings, base_model=base_model, shards=shards, root=root)
    )(job=job)
    return publish(dataset=dataset, captions=captions, gesture=gesture, settings=settings, shards=shards, root=root)
