"""Stage I: find the hand in every image and average its landmarks."""

from flytekit.types.directory import FlyteDirectory

from hand1000.config.settings import Stage1Settings
from tasks.context import TaskContext, shard_slice
from tasks.decorators import artifact_task


@artifact_task(key_by={"settings": lambda settings: settings.min_detection_confidence})
def find_hands(
    context: TaskContext, dataset: FlyteDirectory, shard: int, shards: int, settings: Stage1Settings
) -> None:
    """MediaPipe's landmarks of one shard of the training images, matched to the labelled box."""
    from hand1000.data.imageset import read_image_set
    from hand1000.hands.detection import detect_hands

    folder = context.download(dataset) / "train"
    records = read_image_set(folder)
    part = records[shard_slice(len(records), 1, shard, shards)]
    landmarks = detect_hands(
        folder, part, min_detection_confidence=settings.min_detection_confidence, on_progress=context.on_progress
    )
    landmarks.save(context.output_dir)


@artifact_task()
def compute_gesture_feature(
    context: TaskContext,
    landmarks: list[FlyteDirectory],
    dataset: FlyteDirectory,
    gesture: str,
    settings: Stage1Settings,
) -> None:
    """The feature f of each gesture, the mean over its images, and the pose of each image's own hand."""
    from hand1000.data.imageset import read_image_set
    from hand1000.gestures import group_by_gesture, parse_gestures
    from hand1000.hands.landmarks import Landmarks
    from hand1000.hands.poses import fit_poses
    from hand1000.hands.stage1 import compute_mean_feature, save_features

    hands = Landmarks.concatenate([Landmarks.load(part) for part in context.download_all(landmarks)])
    images = group_by_gesture(read_image_set(context.download(dataset) / "train"))
    features = [
        compute_mean_feature(
            hands.select([record.file_name for record in images[name]]),
            gesture=name,
            kind=settings.feature,
            max_missed=settings.max_missed,
        )
        for name in parse_gestures(gesture)
    ]
    save_features(context.output_dir, features)
    gestures = {record.file_name: name for name, records in images.items() for record in records}
    fit_poses(hands, gestures, features, settings.pose_components).save(context.output_dir)
