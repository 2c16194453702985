"""The faults of images, the worst and the random images, the confusion matrix and the thumbnails."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hand1000.core.errors import Hand1000Error
from hand1000.data.imageset import ImageRecord
from hand1000.evaluation.image_results import ImageResult
from hand1000.reports.compared_images import ComparedImages, compare_images, find_near_copies, find_worst, sample_rows
from hand1000.reports.confusion import NO_HAND, count_confusion
from hand1000.reports.images import fit_thumbnails, image_uri

FOLDER = Path("images")


def result(name: str = "a.png", found: str | None = "call", **fields: object) -> ImageResult:
    values: dict[str, object] = {
        "file_name": name, "target_gesture": "call", "num_hands": int(found is not None),
        "handedness_score": None if found is None else 0.9, "predicted_gesture": found,
        "target_probability": 0.0 if found is None else 0.9, "predicted_probability": 0.9,
    }  # fmt: skip
    return ImageResult.model_validate(values | fields)


def compare(base: list[ImageResult], candidate: list[ImageResult]) -> list[ComparedImages]:
    records = [
        ImageRecord(file_name=row.file_name, text="p", gesture="call", user_id="u", source="0" * 64, seed=number)
        for number, row in enumerate(candidate)
    ]
    return compare_images(records, {"base": (FOLDER, base), "candidate": (FOLDER, candidate)})


def compare_found(*found: str | None) -> list[ComparedImages]:
    """Rows whose candidates show these gestures, in images of which the base model has none right."""
    names = [f"{number:03d}.png" for number in range(len(found))]
    return compare([result(name, None) for name in names], [result(*row) for row in zip(names, found, strict=True)])


@pytest.mark.parametrize(
    ("image", "faults", "labels"),
    [
        (result(), (), ()),
        (result(found=None), ("no-hand",), ("no hand",)),
        (result(found="palm"), ("wrong-gesture",), ("wrong gesture",)),
        (result(num_implausible=1), ("implausible",), ("implausible hand",)),
        (result(memorized=True), ("near-copy",), ("near-copy of a training image",)),
        (result(wrong_colors=("wall", "skin")), ("wrong-color",), ("wrong color: wall, skin",)),
        # Skin and sleeve are not visible without a hand.
        (result(found=None, wrong_colors=("skin",)), ("no-hand",), ("no hand",)),
        (
            result(found=None, wrong_colors=("wall", "skin")),
            ("no-hand", "wrong-color"),
            ("no hand", "wrong color: wall"),
        ),
    ],
)  # fmt: skip
def test_the_faults_of_an_image(image: ImageResult, faults: tuple[str, ...], labels: tuple[str, ...]) -> None:
    candidate = compare([image], [image])[0].candidate
    assert candidate.faults == faults and candidate.fault_labels == labels


def test_a_row_says_what_was_lost_and_gained() -> None:
    right, wrong = result(), result(found="palm")
    changes = [compare([before], [after])[0].change for before in (right, wrong) for after in (right, wrong)]
    assert changes == ["", "lost", "gained", ""]


def test_the_worst_wrong_gesture_is_the_most_confident_one() -> None:
    confidence = {"a.png": 0.4, "b.png": 0.99, "c.png": 0.7}
    candidate = [result(name, "palm", predicted_probability=value) for name, value in confidence.items()]
    (group,) = find_worst(compare([result(name, None) for name in confidence], candidate), 2, seed=0)
    assert group.title.startswith("Wrong gesture") and group.total == 3
    assert [row.name for row in group.rows] == ["b.png", "c.png"]


def test_no_image_is_among_the_worst_twice() -> None:
    both = {"num_implausible": 1, "wrong_colors": ("wall",)}
    candidate = [result(f"{number}.png", "palm", **both) for number in range(6)]
    groups = find_worst(compare([result(row.file_name, None) for row in candidate], candidate), 2, seed=0)
    names = [row.name for group in groups for row in group.rows]
    assert len(names) == len(set(names)) == 6 and [group.total for group in groups] == [6, 6, 6]


def test_what_the_champion_could_do_comes_first() -> None:
    candidate = [result("a.png", "palm"), result("b.png", None)]
    groups = find_worst(compare([result("a.png"), result("b.png", None)], candidate), 4, seed=0)
    assert [group.title for group in groups] == ["Correct in the base, wrong in the candidate", "No hand"]
    assert [row.name for row in groups[0].rows] == ["a.png"]


def test_ties_are_drawn_by_seed_and_not_by_name() -> None:
    rows = compare_found(*[None] * 100)
    drawn = [[row.name for row in find_worst(rows, 8, seed)[0].rows] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2] and drawn[0] != sorted(row.name for row in rows)[:8]
    assert find_worst(rows[::-1], 8, 0)[0].rows == find_worst(rows, 8, 0)[0].rows


def test_random_rows_follow_from_the_seed_alone() -> None:
    rows = compare_found(*["call"] * 50, *[None] * 50)
    sample = sample_rows(rows, 40, seed=3)
    assert sample == sample_rows(rows[::-1], 40, seed=3) != sample_rows(rows, 40, seed=4)
    # The draw does not look at the results.
    assert 10 <= sum(row.candidate.result.num_hands for row in sample) <= 30


def test_the_nearest_training_images_are_in_order() -> None:
    distances = {"a.png": 3.0, "b.png": 1.0, "c.png": None, "d.png": 2.0}
    candidate = [result(name, nearest_distance=value, nearest_train=0) for name, value in distances.items()]
    assert [row.name for row in find_near_copies(compare(candidate, candidate), 2)] == ["b.png", "d.png"]


def test_a_run_without_images_has_no_worst() -> None:
    assert find_worst([], 4, 0) == [] and sample_rows([], 4, 0) == []


def test_the_confusion_matrix_counts_each_image_once() -> None:
    images = [result(found=found) for found in ("call", "call", "palm", "fist", "fist", None)]
    confusion = count_confusion({"base": images[2:], "candidate": images})
    assert confusion.found == ["call", "fist", "palm", NO_HAND]
    assert [(row.model, row.counts, row.total) for row in confusion.rows] == [
        ("base", [0, 2, 1, 1], 4),
        ("candidate", [2, 2, 1, 1], 6),
    ]


def test_each_requested_gesture_has_a_row() -> None:
    images = [result(), result(target_gesture="ok"), result(target_gesture="ok", found="ok")]
    confusion = count_confusion({"candidate": images})
    assert confusion.found == ["call", "ok", NO_HAND] and [row.counts for row in confusion.rows] == [
        [1, 0, 0],
        [1, 1, 0],
    ]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (512, 512, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_thumbnails_shrink_until_they_fit(photo: Path) -> None:
    large, small = len(image_uri(photo, 256)), len(image_uri(photo, 96))
    assert fit_thumbnails([photo] * 10, 20 * large) == (256, 10, True)
    assert fit_thumbnails([photo] * 10, 11 * small) == (96, 10, True)
    side, count, reduced = fit_thumbnails([photo] * 100, 50 * len(image_uri(photo, 64)))
    assert side == 64 and 49 <= count <= 51 and reduced


def test_small_images_stay_as_they_are(photo: Path, tmp_path: Path) -> None:
    Image.open(photo).resize((64, 64)).save(tmp_path / "small.png")
    assert fit_thumbnails([tmp_path / "small.png"] * 3, 10**6) == (256, 3, False)
    assert image_uri(tmp_path / "small.png").startswith("data:image/png") and "jpeg" in image_uri(photo)[:20]


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(Hand1000Error, match="broken.png: not a readable image"):
        image_uri(tmp_path / "broken.png")
