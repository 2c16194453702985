"""Duplicates by perceptual hash: copies in another size, format or quality, and nothing else."""

import itertools

import numpy as np
from PIL import Image
from skimage import data as photos

from hand1000.data.check import check_source
from hand1000.data.crop import load_square
from hand1000.data.duplicates import find_duplicates, fingerprint
from hand1000.data.sources.opening import open_dataset
from tests.support.layouts import facts, jsonl
from tests.support.rendered_hands import rendered_hands

PHOTO = Image.fromarray(photos.astronaut())


def save(folder, people=True):
    """Four hands, copies of a photo in several forms, and a mirrored and a recolored one, which are no copies."""
    folder.mkdir(exist_ok=True)
    PHOTO.save(folder / "a.png")
    PHOTO.save(folder / "b.jpg", quality=60)
    PHOTO.resize((200, 200)).save(folder / "c.webp", quality=80)
    PHOTO.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "d.png")
    Image.fromarray(np.asarray(PHOTO)[..., ::-1]).save(folder / "e.png")
    for index, hand in enumerate(rendered_hands()[:4]):
        Image.fromarray(hand.pixels).save(folder / f"hand{index}.png")
    if people:
        jsonl(folder / "metadata.jsonl", [facts(i, file_name=n) for i, n in enumerate(("a.png", "b.jpg", "c.webp"))])


def test_copies_are_found_in_any_size_and_format(tmp_path):
    save(tmp_path, people=False)
    files = sorted(path for path in tmp_path.iterdir())
    prints = [fingerprint(load_square(path, 64)[0]) for path in files]
    groups = [[files[index].name for index in group] for group in find_duplicates(prints)]
    assert groups == [["a.png", "b.jpg", "c.webp"]]
    assert find_duplicates([]) == [] and find_duplicates(prints[:1]) == []


def test_near_hashes_are_found_wherever_they_differ():
    """Every pair of hashes that differ in up to three bits shares one of the four bands."""
    base = fingerprint(load_square_of(PHOTO))
    for bits in itertools.combinations((0, 15, 16, 31, 32, 47, 48, 63), 3):
        near = type(base)(base.hash ^ sum(1 << bit for bit in bits), base.colors)
        assert find_duplicates([base, near]) == [[0, 1]]
        assert find_duplicates([base, type(base)(near.hash ^ (1 << 5), base.colors)]) == []


def load_square_of(image):
    return np.asarray(image.convert("RGB").resize((64, 64)))


def test_rendered_hands_are_no_duplicates_of_each_other():
    assert find_duplicates([fingerprint(hand.pixels) for hand in rendered_hands()]) == []


def test_the_check_says_which_copies_are_of_several_people(tmp_path):
    save(tmp_path)
    report = check_source(open_dataset(tmp_path), "four")
    (group,) = report.duplicates
    assert group.files == ("a.png", "b.jpg", "c.webp") and group.is_split
    jsonl(tmp_path / "metadata.jsonl", [facts(0, file_name=name) for name in ("a.png", "b.jpg", "c.webp")])
    (group,) = check_source(open_dataset(tmp_path), "four").duplicates
    assert not group.is_split
