"""Image sets, the crop, the selection from a source and its preparation."""

import io
import json
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hand1000.config.data_settings import FilterSettings
from hand1000.core.errors import Hand1000Error
from hand1000.core.rng import numpy_generator
from hand1000.data.crop import UnreadableImage, load_square
from hand1000.data.imageset import ImageRecord, ImageSet, read_image_set, write_metadata
from hand1000.data.prepare import prepare_image_sets
from hand1000.data.selection import select_images
from hand1000.storage.digests import digest_file, tree_manifest
from hand1000.storage.sources import open_source

FOUR = "making four fingers up hand gesture"


# The image set


def record(name: str = "a.png", **fields) -> ImageRecord:
    values = {"text": f"a man, {FOUR}", "caption": "a man", "captioner": "dataset", "gesture": "four"}
    values |= {"user_id": "u1", "source": "0" * 64, "bbox": (0.1, 0.2, 0.3, 0.4)}
    return ImageRecord(**({"file_name": name} | values | fields))


def test_records_come_back_in_the_order_of_their_names(tmp_path):
    records = [record("b.png", bbox=None, attributes={"skin": "dark"}), record("a.png", seed=7)]
    for one in records:
        (tmp_path / one.file_name).touch()
    write_metadata(tmp_path, records)
    assert read_image_set(tmp_path) == records[::-1]
    images = ImageSet.read(tmp_path)
    assert images.paths == [tmp_path / "a.png", tmp_path / "b.png"]
    first, second = map(json.loads, (tmp_path / "metadata.jsonl").read_text().splitlines())
    assert "attributes" not in first and "seed" not in second and second["bbox"] is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": 1}, "line 2: text"),
        ({"more": 1}, "line 2: more"),
        ({"bbox": [0, 0, 2, 1]}, "line 2: bbox.2"),
        ({"source": "abc"}, "line 2: source"),
        ({"file_name": "../a.png"}, "line 2: file_name"),
        ({"file_name": "a.png"}, "line 2: a.png stands twice"),
        ({"file_name": "c.png"}, "line 2: no such image: c.png"),
    ],
)
def test_a_malformed_record_is_named(tmp_path, change, message):
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    lines = [record("a.png").model_dump(mode="json"), record("b.png").model_dump(mode="json") | change]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(Hand1000Error, match=f"metadata.jsonl: {message}"):
        read_image_set(tmp_path)


def test_a_folder_without_metadata_is_named(tmp_path):
    with pytest.raises(Hand1000Error, match="metadata.jsonl: no such file"):
        read_image_set(tmp_path / "nowhere")


# The crop

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def marked(size: tuple[int, int], box: tuple[float, float, float, float]) -> Image.Image:
    """A blue picture with a red rectangle, `box` relative to it."""
    picture = Image.new("RGB", size, BLUE)
    x, y, w, h = box[0] * size[0], box[1] * size[1], box[2] * size[0], box[3] * size[1]
    picture.paste(RED, (round(x), round(y), round(x + w), round(y + h)))
    return picture


def red_box(square: np.ndarray) -> tuple[float, float, float, float]:
    """The box of the red pixels, relative to the square."""
    ys, xs = np.nonzero((square[..., 0] > 128) & (square[..., 2] < 128))
    side = len(square)
    return (xs.min() / side, ys.min() / side, (np.ptp(xs) + 1) / side, (np.ptp(ys) + 1) / side)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("size", [(400, 200), (200, 400), (300, 300), (1601, 1201), (30, 20)])
@pytest.mark.parametrize("box", [(0.0, 0.0, 0.2, 0.2), (0.8, 0.7, 0.2, 0.3), (0.4, 0.5, 0.1, 0.2)])
@pytest.mark.parametrize("seed", [None, 1, 2])
def test_the_crop_holds_the_box_and_moves_it_along(tmp_path, suffix, size, box, seed):
    marked(size, box).save(tmp_path / f"x.{suffix}", **({"quality": 95, "subsampling": 0} if suffix == "jpg" else {}))
    generator = None if seed is None else numpy_generator(seed)
    square, moved = load_square(tmp_path / f"x.{suffix}", 100, box, generator)
    assert square.shape == (100, 100, 3) and square.dtype == np.uint8
    assert moved == pytest.approx(red_box(square), abs=0.04)
    side = min(size)
    assert moved[2:] == pytest.approx((box[2] * size[0] / side, box[3] * size[1] / side), abs=0.01), "cut off"


def test_the_crop_lies_as_near_to_the_centre_as_the_box_allows(tmp_path):
    Image.new("RGB", (400, 200)).save(tmp_path / "x.png")
    assert load_square(tmp_path / "x.png", 50, (0.45, 0.4, 0.1, 0.2))[1] == pytest.approx((0.4, 0.4, 0.2, 0.2))
    assert load_square(tmp_path / "x.png", 50, (0.9, 0.4, 0.1, 0.2))[1] == pytest.approx((0.8, 0.4, 0.2, 0.2))
    assert load_square(tmp_path / "x.png", 50, (0.05, 0.4, 0.8, 0.2))[1] == pytest.approx((0.0, 0.4, 1.0, 0.2))


def test_the_jitter_is_that_of_its_generator(tmp_path):
    Image.new("RGB", (400, 200)).save(tmp_path / "x.png")
    places = [load_square(tmp_path / "x.png", 50, (0.45, 0, 0.1, 1), numpy_generator(seed))[1] for seed in (1, 1, 2)]
    assert places[0] == places[1] != places[2]


def test_a_turned_picture_is_made_upright_first(tmp_path):
    upright = marked((300, 200), (0.8, 0.0, 0.2, 0.3))
    exif = Image.Exif()
    exif[0x0112] = 6  # Shown turned clockwise by a quarter.
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "x.jpg", exif=exif, quality=95, subsampling=0)
    square, moved = load_square(tmp_path / "x.jpg", 100, (0.8, 0.0, 0.2, 0.3))
    assert moved == pytest.approx(red_box(square), abs=0.04)


def test_a_fine_pattern_becomes_grey_not_moire(tmp_path):
    stripes = np.zeros((1024, 1024, 3), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "x.png")
    square, _ = load_square(tmp_path / "x.png", 100)
    assert abs(square[10:-10, 10:-10].astype(int) - 127).max() <= 3


def sixteen_bits() -> Image.Image:
    return Image.fromarray(np.full((20, 20), 128 * 257, np.uint16))


def clear_red() -> Image.Image:
    """Red that is wholly transparent."""
    return Image.new("RGBA", (20, 20), (255, 0, 0, 0))


@pytest.mark.parametrize(
    ("picture", "suffix", "colour"),
    [
        (Image.new("L", (20, 20), 100), "png", (100, 100, 100)),
        (Image.new("1", (20, 20), 1), "png", WHITE),
        (Image.new("RGB", (20, 20), GREEN).convert("P"), "png", GREEN),
        (Image.new("RGB", (20, 20), GREEN).convert("CMYK"), "jpg", GREEN),
        (Image.new("RGB", (20, 20), GREEN).convert("CMYK"), "tif", GREEN),
        (sixteen_bits(), "png", (128, 128, 128)),
        (sixteen_bits(), "tif", (128, 128, 128)),
        (clear_red(), "png", WHITE),
        (clear_red(), "webp", WHITE),
        (clear_red().convert("LA"), "png", WHITE),
        (Image.new("RGBA", (20, 20), (0, 0, 255, 51)), "png", (204, 204, 255)),
    ],
)
def test_every_kind_of_pixel_becomes_rgb(tmp_path, picture, suffix, colour):
    picture.save(tmp_path / f"x.{suffix}", **({"quality": 100} if suffix == "jpg" else {}))
    square, _ = load_square(tmp_path / f"x.{suffix}", 10)
    assert np.abs(square.astype(int) - colour).max() <= 2


def test_transparent_palette_becomes_white(tmp_path):
    picture = Image.new("P", (20, 20), 0)
    picture.putpalette([255, 0, 0, 0, 255, 0])
    picture.save(tmp_path / "x.png", transparency=0)
    assert (load_square(tmp_path / "x.png", 10)[0] == 255).all()


def jpeg_bytes(size: tuple[int, int] = (64, 64)) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise(size, 50).convert("RGB").save(buffer, "jpeg")
    return buffer.getvalue()


def huge_png() -> bytes:
    """A small file of too many pixels, though fewer than Pillow itself minds."""
    buffer = io.BytesIO()
    Image.new("1", (9_000, 9_000)).save(buffer, "png")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"no picture", "not a picture"),
        (jpeg_bytes()[:700], "truncated"),
        (huge_png(), "9000x9000 pixels, more than"),
        (None, "no such file"),
    ],
)
def test_an_unreadable_picture_says_why(tmp_path, data, reason):
    if data is not None:
        (tmp_path / "x.jpg").write_bytes(data)
    with pytest.raises(UnreadableImage, match=reason) as caught:
        load_square(tmp_path / "x.jpg", 10)
    assert "\n" not in str(caught.value) and str(tmp_path / "x.jpg") in str(caught.value)


def test_no_cut_or_flipped_file_escapes_as_another_error(tmp_path):
    generator = numpy_generator(3)
    buffer = io.BytesIO()
    Image.effect_noise((40, 40), 50).convert("RGBA").save(buffer, "png")
    for original in (jpeg_bytes(), buffer.getvalue()):
        for _ in range(60):
            data = bytearray(original[: generator.integers(1, len(original) + 1)])
            for place in generator.integers(0, len(data), 3):
                data[place] = generator.integers(256)
            (tmp_path / "x").write_bytes(data)
            try:
                square, _ = load_square(tmp_path / "x", 8)
            except UnreadableImage:
                continue
            assert square.shape == (8, 8, 3)


# The selection


def hagrid(root: Path, users: dict[str, int], split: str = "train", gesture: str = "four", **fields) -> Path:
    """Add pictures to a HaGRID layout: `users` says how many each person has; `fields` go into every annotation."""
    file = root / "annotations" / split / f"{gesture}.json"
    entries = json.loads(file.read_text()) if file.is_file() else {}
    (root / gesture).mkdir(parents=True, exist_ok=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    for user, count in users.items():
        for index in range(count):
            name = f"{split}-{user}-{index}"
            shade = len(entries) % 256
            Image.new("RGB", (24, 16), (shade, 10, 20)).save(root / gesture / f"{name}.jpg")
            entry = {"bboxes": [[0.4, 0.4, 0.2, 0.2]], "labels": [gesture], "user_id": user, "hand_landmarks": []}
            entries[name] = entry | fields
    file.write_text(json.dumps(entries))
    return root


EVERYTHING = FilterSettings(min_hand_size=0, allow_border_hands=True, max_hands=100, min_detector_iou=0)


def people(items) -> set[str]:
    return {item.user_id for item in items}


def keys(items) -> list[str]:
    return [item.key for item in items]


def select(root: Path, train: int, test: int, seed: int = 1, gesture: str = "four"):
    return select_several(root, train, test, (gesture,), seed)


def select_several(root: Path, train: int, test: int, gestures: tuple[str, ...], seed: int = 1):
    return select_images(open_source(root), gestures, num_train=train, num_test=test, seed=seed, filters=EVERYTHING)


@pytest.fixture
def divided(tmp_path: Path) -> Path:
    """A source with HaGRID's division; the person u0 is wrongly on both sides."""
    hagrid(tmp_path, {f"u{i}": 3 for i in range(6)}, "train")
    hagrid(tmp_path, {f"v{i}": 2 for i in range(3)}, "val")
    return hagrid(tmp_path, {"u0": 2, "w0": 2, "w1": 2, "w2": 2}, "test")


def test_the_division_of_hagrid_is_kept_and_nobody_is_on_both_sides(divided):
    chosen = select(divided, 24, 6)
    assert people(chosen.train) == {f"u{i}" for i in range(6)} | {f"v{i}" for i in range(3)}
    assert people(chosen.test) == {"w0", "w1", "w2"}
    assert chosen.warnings == ()


def test_a_smaller_choice_is_the_beginning_of_a_larger_one(divided):
    small, large = select(divided, 5, 2), select(divided, 20, 6)
    assert large.train[:5] == small.train and large.test[:2] == small.test


def test_the_seed_decides_and_the_order_of_the_listing_does_not(divided):
    before = select(divided, 10, 4)
    assert select(divided, 10, 4) == before
    assert keys(select(divided, 10, 4, seed=2).train) != keys(before.train)
    file = divided / "annotations" / "train" / "four.json"
    file.write_text(json.dumps(dict(reversed(json.loads(file.read_text()).items()))))
    assert select(divided, 10, 4) == before


def test_without_a_division_people_are_drawn(tmp_path):
    hagrid(tmp_path, {f"u{i}": 3 for i in range(8)})
    chosen = select(tmp_path, 15, 7)
    assert len(chosen.test) == 7 and len(people(chosen.test)) == 3
    assert not people(chosen.train) & people(chosen.test)
    assert select(tmp_path, 4, 7).train == chosen.train[:4]
    assert people(select(tmp_path, 15, 7, seed=2).test) != people(chosen.test)


def test_fewer_than_asked_for_are_all_used_and_it_is_said(divided, caplog):
    with caplog.at_level(logging.WARNING):
        chosen = select(divided, 1000, 6)
    assert len(chosen.train) == 24
    assert chosen.warnings == ("four: all 24 training pictures are used; 1000 were asked for",)
    assert "all 24 training pictures" in caplog.text


@pytest.mark.parametrize("test", [7, 1000])
def test_too_few_to_measure_against_states_the_counts(divided, test):
    with pytest.raises(Hand1000Error, match=f"24 to train on and 6 of other people .* 10 and {test} are asked"):
        select(divided, 10, test)


def test_a_missing_gesture_names_those_that_are_there(divided, tmp_path):
    hagrid(divided, {"u": 1}, gesture="ok")
    with pytest.raises(Hand1000Error, match="'palm'; there are: four, ok"):
        select(divided, 1, 1, gesture="palm")


def test_other_faults_of_a_source_are_named(divided, tmp_path):
    with pytest.raises(Hand1000Error, match="unknown gesture 'wave'"):
        select(divided, 1, 1, gesture="wave")
    with pytest.raises(Hand1000Error, match="nowhere: no such folder"):
        select(tmp_path / "nowhere", 1, 1)
    (tmp_path / "bare").mkdir()
    with pytest.raises(Hand1000Error, match="bare: no pictures of 'four'; it is empty"):
        select(tmp_path / "bare", 1, 1)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"bboxes": [[0, 0, 1]]}, "annotation: Expected `array` of length 4 - at `$.bboxes[0]`"),
        ({"user_id": None}, "annotation: Expected `str`, got `null` - at `$.user_id`"),
        ({"united_bbox": [[0.1]], "united_label": ["four"]}, "annotation: Expected `array` of length 4, got 1"),
        ({"labels": []}, "annotation: 1 bboxes but 0 labels"),
        ({"bboxes": [[1.2, 0.1, 0.5, 0.5]]}, "box lies outside the picture"),
    ],
)
def test_a_malformed_annotation_is_counted_named_and_passed_over(divided, tmp_path, fields, reason):
    file = divided / "annotations" / "train" / "four.json"
    entries = json.loads(file.read_text())
    entries["train-u1-0"] |= fields
    file.write_text(json.dumps(entries))
    chosen = select(divided, 23, 6)
    (one,) = chosen.unusable
    assert one.file == "four/train-u1-0.jpg" and reason in one.reason
    assert len(chosen.train) == 23
    report = prepare_image_sets(chosen, tmp_path / "out", resolution=8, max_unusable=0.1, seed=1)
    assert report.unusable == (one,)
    with pytest.raises(Hand1000Error, match=r"1 of 30 pictures cannot be used.*data\.max_unusable.*train-u1-0"):
        prepare_image_sets(chosen, tmp_path / "other", resolution=8, max_unusable=0.01, seed=1)


def test_filters_take_out_and_count(divided):
    file = divided / "annotations" / "train" / "four.json"
    entries = json.loads(file.read_text())
    entries["train-u1-0"]["bboxes"] = [[0.4, 0.4, 0.05, 0.09]]
    entries["train-u1-1"]["bboxes"] = [[0.0, 0.4, 0.5, 0.5]]
    entries["train-u1-2"] |= {"bboxes": [[0.4, 0.4, 0.5, 0.5]] * 3, "labels": ["four"] * 3}
    file.write_text(json.dumps(entries))
    strict = FilterSettings(min_hand_size=0.1, allow_border_hands=False, max_hands=2, min_detector_iou=0)
    chosen = select_images(open_source(divided), ("four",), num_train=21, num_test=6, seed=1, filters=strict)
    assert "u1" not in people(chosen.train) and len(chosen.train) == 21
    assert chosen.filtered == (("hand too small", 1), ("hand at the border", 1), ("too many hands", 1))
    assert "u1" in people(select(divided, 24, 6).train)


def test_nothing_but_malformed_annotations_names_one(tmp_path):
    hagrid(tmp_path, {"u": 2}, user_id=None)
    with pytest.raises(Hand1000Error, match=r"too few pictures.*2 passed over, the first: four/train-u-0.jpg.*user_id"):
        select(tmp_path, 1, 1)


def test_what_does_not_belong_together_is_told(divided):
    """Annotations without a picture, pictures without an annotation, a file that is no JSON."""
    for path in (divided / "four").glob("train-u1-*.jpg"):
        path.unlink()
    Image.new("RGB", (9, 9)).save(divided / "four" / "näme with blanks.jpg")
    (divided / "annotations" / "val" / "four.json").write_text('{"a":')
    chosen = select(divided, 15, 6)
    assert len(chosen.train) == 15 and chosen.unusable == ()
    told = " ".join(chosen.warnings)
    assert "train/four.json: 3 of 18 pictures are not there: train-u1-0" in told
    assert "val/four.json: passed over: not JSON" in told and "7 pictures have no annotation" in told
    assert str(divided) not in told


@pytest.mark.parametrize(
    ("fields", "box"),
    [
        ({"bboxes": [[0, 0, 0.9, 0.9], [0.1, 0.1, 0.2, 0.2]], "labels": ["no_gesture", "four"]}, (0.1, 0.1, 0.2, 0.2)),
        ({"bboxes": [[0, 0, 0.1, 0.1], [0.5, 0.5, 0.2, 0.2]], "labels": ["four"] * 2}, (0.5, 0.5, 0.2, 0.2)),
        ({"bboxes": [[-0.1, 0.5, 0.3, 0.7]]}, (0.0, 0.5, 0.2, 0.5)),
        ({"labels": ["no_gesture"]}, None),
        ({"united_bbox": [[0.1, 0.2, 0.3, 0.4]], "united_label": ["four"]}, (0.1, 0.2, 0.3, 0.4)),
        ({"united_bbox": [0.1, 0.2, 0.3, 0.4], "united_label": "four"}, (0.1, 0.2, 0.3, 0.4)),
        ({"united_bbox": [[0.1, 0.2, 0.3, 0.4]], "united_label": ["timeout"]}, (0.4, 0.4, 0.2, 0.2)),
        ({"united_bbox": None, "united_label": None}, (0.4, 0.4, 0.2, 0.2)),
    ],
)
def test_the_box_is_that_of_the_hand_that_makes_the_gesture(tmp_path, fields, box):
    hagrid(tmp_path, {"u": 1, "v": 1}, **fields)
    (item,) = select(tmp_path, 1, 1).train
    assert item.bbox == (pytest.approx(box) if box else None)


def test_what_is_known_of_a_picture_comes_along_but_not_guesses_of_the_person(tmp_path):
    meta = {"age": [24.1], "gender": ["female"], "race": ["x"], "skin": "dark"}
    hagrid(tmp_path, {"u": 1, "v": 1}, leading_hand="right", caption="a hand", meta=meta)
    (item,) = select(tmp_path, 1, 1).train
    assert item.attributes == {"skin": "dark", "handedness": "right"} and item.caption == "a hand"


@pytest.mark.parametrize("below", ["", "four"])
def test_ones_own_pictures_count_as_a_person_each(tmp_path, below):
    folder = tmp_path / below
    folder.mkdir(exist_ok=True)
    for index in range(10):
        Image.new("RGB", (8, 8), (index, 0, 0)).save(folder / f"picture {index}.PNG")
    for copy in range(5):  # Copies of one picture are one person.
        Image.new("RGB", (8, 8), (99, 0, 0)).save(folder / f"copy{copy}.png")
    (folder / "readme.txt").write_text("x")
    chosen = select(tmp_path, 15, 4)
    assert not people(chosen.train) & people(chosen.test)
    assert len(people(chosen.train)) + len(people(chosen.test)) <= 11
    assert len(set(keys(chosen.train + chosen.test))) == len(chosen.train + chosen.test)
    assert all(" " not in key for key in keys(chosen.train))


def test_an_imagefolders_metadata_is_used(tmp_path):
    for name in ("a.png", "a.jpg", "b.png"):
        Image.new("RGB", (8, 8), (len(name), ord(name[-1]), ord(name[0]))).save(tmp_path / name)
    lines = [
        {"file_name": "a.png", "text": "a man", "user_id": "x", "bbox": [0.1, 0.1, 0.5, 0.5], "column": 1},
        {"file_name": "a.jpg", "text": "another", "caption": "before its completion", "user_id": "x"},
    ]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    chosen = select(tmp_path, 2, 1)
    items = {item.file: item for item in chosen.train + chosen.test}
    assert items["a.png"].caption == "a man" and items["a.jpg"].caption == "another" and items["b.png"].caption is None
    assert items["a.png"].bbox == (0.1, 0.1, 0.5, 0.5) and items["a.png"].user_id == "x"
    assert len(set(keys(items.values()))) == 3
    (tmp_path / "metadata.jsonl").write_text('\n{"file_name": "../c.png"}')
    with pytest.raises(Hand1000Error, match="metadata.jsonl: line 2: no such picture beside it: ../c.png"):
        select(tmp_path, 1, 1)


def test_a_published_data_set_keeps_its_division(tmp_path):
    for split, people_of in (("train", "abcd"), ("test", "wxyz")):
        (tmp_path / split).mkdir()
        lines = []
        for index, person in enumerate(people_of):
            Image.new("RGB", (8, 8), (ord(person), 0, 0)).save(tmp_path / split / f"{person}.png")
            gesture = "ok" if index == 3 else "four"
            lines.append({"file_name": f"{person}.png", "caption": "a man", "gesture": gesture, "user_id": person})
        (tmp_path / split / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    chosen = select(tmp_path, 9, 3)
    assert people(chosen.train) == set("abc") and people(chosen.test) == set("wxy")
    with pytest.raises(Hand1000Error, match="no pictures of 'fist'; there are: four, ok"):
        select(tmp_path, 1, 1, gesture="fist")


# Several gestures


def of(items, gesture: str) -> list:
    return [item for item in items if item.gesture == gesture]


def test_each_of_several_gestures_is_chosen_as_if_alone_where_the_source_is_divided(divided):
    hagrid(hagrid(divided, {f"x{i}": 3 for i in range(6)}, gesture="ok"), {"y0": 3, "y1": 3}, "test", "ok")
    both = select_several(divided, 12, 4, ("four", "ok"))
    for gesture in ("four", "ok"):
        alone = select(divided, 12, 4, gesture=gesture)
        assert (of(both.train, gesture), of(both.test, gesture)) == (list(alone.train), list(alone.test))
    assert both.num_train == 12 and len(both.train) == 24 and len(both.test) == 8
    assert select_several(divided, 99, 4, ("ok", "four")).warnings == (
        "ok: all 18 training pictures are used; 99 were asked for",
        "four: all 24 training pictures are used; 99 were asked for",
    )
    with pytest.raises(Hand1000Error, match="ok: too few pictures: 18 to train on and 6 of other people"):
        select_several(divided, 12, 7, ("ok",))


def test_a_person_is_not_trained_on_with_one_gesture_and_measured_against_with_another(divided):
    # w1 is measured against with four, and here trained on with ok.
    hagrid(hagrid(divided, {"x": 3, "w1": 1}, gesture="ok"), {"y0": 3}, "test", "ok")
    assert "w1" in people(select(divided, 12, 6).test)
    both = select_several(divided, 12, 2, ("four", "ok"))
    assert len(people(both.train)) > 3 and not people(both.train) & people(both.test)
    with pytest.raises(Hand1000Error, match="four: too few pictures: 24 to train on and 4 of other people"):
        select_several(divided, 12, 6, ("four", "ok"))


@pytest.mark.parametrize("gestures", [("four", "ok"), ("ok", "four")])
def test_people_are_held_out_for_all_gestures_at_once(tmp_path, gestures):
    """Of ok each has one picture, so that more people must be held out for it than for four."""
    everyone = [f"u{i}" for i in range(40)]
    hagrid(hagrid(tmp_path, dict.fromkeys(everyone, 6)), dict.fromkeys(everyone, 1), gesture="ok")
    alone = {gesture: select(tmp_path, 300, 12, gesture=gesture) for gesture in gestures}
    assert people(alone["four"].train) & people(alone["ok"].test)  # Chosen each for itself, they would be.
    both = select_several(tmp_path, 300, 12, gestures)
    assert not people(both.train) & people(both.test)
    for gesture in gestures:
        assert of(both.test, gesture) == list(alone[gesture].test)
    assert len(of(both.train, "four")) == 6 * 28 and len(of(both.train, "ok")) == 28
    assert select_several(tmp_path, 20, 12, gestures).train == tuple(
        item for gesture in gestures for item in of(both.train, gesture)[:20]
    )


def test_where_one_gesture_has_no_division_people_are_drawn_for_all(divided):
    hagrid(divided, {f"u{i}": 2 for i in range(6)} | {f"x{i}": 2 for i in range(6)}, gesture="ok")
    both = select_several(divided, 12, 4, ("four", "ok"))
    assert not people(both.train) & people(both.test)
    assert len(of(both.test, "four")) == len(of(both.test, "ok")) == 4


def test_pictures_of_several_gestures_must_say_what_they_show(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(Hand1000Error, match="a.png: nothing says which gesture it shows; put .* into folders of their"):
        select_several(tmp_path, 1, 1, ("four", "ok"))
    for gesture in ("four", "ok"):
        (tmp_path / "below" / gesture).mkdir(parents=True)
        for index in range(4):
            shade = (index, len(gesture), 0)
            Image.new("RGB", (8, 8), shade).save(tmp_path / "below" / gesture / f"{index}.png")
    # Each counts as a person, and nobody is held out in vain.
    assert len(select_several(tmp_path / "below", 2, 2, ("four", "ok")).train) == 4


def test_pictures_of_one_name_are_kept_apart_and_mixed_by_name(tmp_path):
    for gesture in ("four", "ok"):
        (tmp_path / gesture).mkdir()
        for index in range(6):
            Image.new("RGB", (8, 8), (index, len(gesture), 0)).save(tmp_path / gesture / f"{index}.png")
    chosen = select_several(tmp_path, 4, 2, ("four", "ok"))
    report = prepare_image_sets(chosen, tmp_path / "out", resolution=16, max_unusable=0.0, seed=1)
    assert (report.train, report.test) == (8, 4)
    for side, count in (("train", 4), ("test", 2)):
        records = read_image_set(tmp_path / "out" / side)
        assert [record.gesture for record in records].count("ok") == count == len(records) / 2
        for record in records:
            assert record.file_name.endswith(f"-{record.gesture}.png") and record.text == ""
            pixel = np.asarray(Image.open(tmp_path / "out" / side / record.file_name))[8, 8]
            assert (pixel[0], pixel[1]) == (int(record.file_name[0]), len(record.gesture))


# The preparation


def prepare(root: Path, out: Path, max_unusable: float = 0.0, seed: int = 1, **kwargs):
    return prepare_image_sets(select(root, 12, 4), out, resolution=16, max_unusable=max_unusable, seed=seed, **kwargs)


def test_the_image_sets_hold_what_was_chosen(divided, tmp_path):
    calls = []
    report = prepare(divided, tmp_path / "out", progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 16) for done in range(1, 17)]
    assert (report.train, report.test, report.unusable, report.warnings) == (12, 4, (), ())
    train = ImageSet.read(tmp_path / "out" / "train")
    chosen = {f"{item.key}.png": item for item in select(divided, 12, 4).train}
    assert train.file_names == sorted(chosen)
    for one, path in zip(train.records, train.paths, strict=True):
        item = chosen[one.file_name]
        assert one.source == digest_file(divided / item.file) and one.user_id == item.user_id and one.gesture == "four"
        assert (one.text, one.caption, one.captioner) == ("", "", "")
        square, bbox = load_square(divided / item.file, 16, item.bbox, numpy_generator(1, "crop", "four", item.key))
        with Image.open(path) as picture:
            assert picture.format == "PNG" and (np.asarray(picture) == square).all()
        assert one.bbox == bbox


def test_the_same_source_gives_the_same_bytes_wherever_it_lies(divided, tmp_path):
    other = hagrid(hagrid(tmp_path / "other", {f"u{i}": 3 for i in range(6)}, "train"), {"x": 1}, "test")
    (other / "four" / "train-u1-1.jpg").write_bytes(b"")
    moved = other.rename(tmp_path / "moved")
    digests = set()
    for source, seed in ((moved, 1), (moved, 1), (moved, 2)):
        out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        report = prepare_image_sets(
            select(source, 18, 1), out, resolution=16, max_unusable=0.1, seed=seed, progress=None
        )
        assert str(tmp_path) not in report.model_dump_json()
        digests.add((tree_manifest(out).digest, report.model_dump_json()))
    assert len(digests) == 2, "the seed places the crops, nothing else changes"


def test_unreadable_pictures_are_passed_over_and_named(divided, tmp_path, caplog):
    broken = [divided / item.file for item in select(divided, 12, 4).train[:2]]
    broken[0].write_bytes(b"")
    broken[1].write_bytes(broken[1].read_bytes()[:300])
    report = prepare(divided, tmp_path / "out", max_unusable=2 / 16)
    assert (report.train, report.test) == (10, 4) and len(read_image_set(tmp_path / "out" / "train")) == 10
    assert [one.file for one in report.unusable] == [f"four/{path.name}" for path in broken]
    assert report.unusable[0].reason == "empty file"
    assert str(broken[0]) in caplog.text
    with pytest.raises(Hand1000Error, match=f"2 of 16 pictures cannot be used.*data.max_unusable.*{broken[0].name}"):
        prepare(divided, tmp_path / "again", max_unusable=1 / 16)


def test_a_set_without_a_readable_picture_is_refused(divided, tmp_path):
    for item in select(divided, 12, 4).test:
        (divided / item.file).write_bytes(b"")
    with pytest.raises(Hand1000Error, match="test: none of 4 pictures"):
        prepare(divided, tmp_path / "out", max_unusable=1.0)


def test_a_full_disk_stops_the_preparation(divided, tmp_path, monkeypatch):
    # Preparing a real full disk is done in test_storage; here the encoder's refusal is made.
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(Hand1000Error, match="no space left"):
        prepare(divided, tmp_path / "out")
