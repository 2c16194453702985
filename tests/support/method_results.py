"""Made-up results of the method comparison."""

from collections.abc import Sequence

import numpy as np

from hand1000.evaluation.distances import Distance
from hand1000.evaluation.image_results import ImageResult
from hand1000.evaluation.methods import Cost, MethodResult
from hand1000.evaluation.metrics import Metrics


def make_result(
    method: str = "hand1000",
    *,
    shown: Sequence[bool] = (True, False),
    seed: int = 0,
    memorized: Sequence[bool] | None = None,
    fid: float = 1.0,
    diversity: float | None = None,
) -> MethodResult:
    """The result of one training, whose images show the gesture or do not; each of the FIDs is `fid`."""
    images = tuple(
        ImageResult(
            file_name=f"{index}.png",
            target_gesture="four",
            num_hands=1,
            handedness_score=0.9,
            predicted_gesture="four" if shows else "ok",
            target_probability=0.5,
            memorized=memorized[index] if memorized else None,
        )
        for index, shows in enumerate(shown)
    )
    metrics = Metrics(
        gesture="four",
        n_real=2,
        n_fake=len(images),
        hands_real=2,
        hands_fake=len(images),
        fid=fid,
        kid=Distance(value=0.1, low=0.0, high=0.2),
        cmmd=None,
        fid_h=fid,
        kid_h=Distance(value=fid, low=0.9 * fid, high=1.1 * fid),
        hand_conf=0.9,
        detection_rate=1.0,
        gesture_accuracy=float(np.mean(shown)),
        real_detection_rate=1.0,
        real_gesture_accuracy=1.0,
        palm_score=0.9,
        hand_presence=0.9,
        implausible_hand_rate=None,
        clip_score=None,
        color_faithfulness={"wall": 1.0},
        real_color_faithfulness={"wall": 1.0},
        intra_prompt_distance=diversity,
        memorization_rate=float(np.mean(memorized)) if memorized else None,
        by_gesture={},
        extractor="none",
        extractor_sha256="",
        resizer="",
        classifier_sha256="",
        min_detection_confidence=0.5,
        notes=(),
        images=images,
    )
    cost = Cost(train_seconds=1.0, image_seconds=1.0, peak_bytes=1, own_seconds=60.0)
    return MethodResult(method=method, seed=seed, metrics=metrics, cost=cost)


def show(rate: float, count: int = 20) -> list[bool]:
    """Whether each of `count` images shows the gesture: the first ones."""
    return [index < round(rate * count) for index in range(count)]
