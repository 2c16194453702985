"""Stage I: find the hand in every image, average its landmarks."""

from flytekit.types.directory import FlyteDirectory

from hand1000.config.settings import Stage1Settings
from tasks.context import Artifact, TaskContext, cluster_task, run_cached, shard_range


@cluster_task()
def find_hands(
    dataset: FlyteDirectory, shard: int, shards: int, settings: Stage1Settings, run: str, root: str
) -> Artifact:
    """MediaPipe's landmarks of one shard of the training images, matched to the labelled box."""
    from hand1000.data.imageset import read_image_set
    from hand1000.hands.detection import detect_hands

    def build(work: TaskContext) -> None:
        folder = work.read(dataset) / "train"
        records = read_image_set(folder)
        part = [records[index] for index in shard_range(len(records), 1, shard, shards)]
        detect_hands(
            folder, part, min_detection_confidence=settings.min_detection_confidence, on_progress=work.report
        ).save(work.out)

    return run_cached(
        "find_hands",
        root=root,
        run=run,
        build=build,
        label=f"shard {shard + 1} of {shards}",
        inputs={
            "dataset": dataset,
            "shard": shard,
            "shards": shards,
            "min_detection_confidence": settings.min_detection_confidence,
        },
    )


@cluster_task()
def average_hands(
    landmarks: list[FlyteDirectory],
    dataset: FlyteDirectory,
    gesture: str,
    settings: Stage1Settings,
    run: str,
    root: str,
) -> Artifact:
    """The feature f of each gesture, the mean over its images, and how each image's own hand differs from it."""
    from hand1000.data.imageset import read_image_set
    from hand1000.gestures import group_by_gesture, parse_gestures
    from hand1000.hands.landmarks import Landmarks
    from hand1000.hands.poses import fit_poses
    from hand1000.hands.stage1 import compute_mean_feature, save_features

    def build(work: TaskContext) -> None:
        found = Landmarks.concatenate([Landmarks.load(work.read(part)) for part in landmarks])
        images = group_by_gesture(read_image_set(work.read(dataset) / "train"))
        features = [
            compute_mean_feature(
                found.select([record.file_name for record in images[one]]),
                gesture=one,
                kind=settings.feature,
                max_missed=settings.max_missed,
            )
            for one in parse_gestures(gesture)
        ]
        save_features(work.out, features)
        shown = {record.file_name: gesture for gesture, records in images.items() for record in records}
        fit_poses(found, shown, features, settings.pose_components).save(work.out)

    return run_cached(
        "average_hands",
        root=root,
        run=run,
        build=build,
        inputs={"landmarks": landmarks, "dataset": dataset, "gesture": gesture, "settings": settings},
    )
