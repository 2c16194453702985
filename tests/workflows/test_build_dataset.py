"""A dataset from images to its card, through Flyte, with real captioner classes of random weights."""

import json
import re
from pathlib import Path

import pytest
import yaml

from hand1000.captions.captioners import VisionCaptioner
from hand1000.config.caption_settings import DatasetSettings
from hand1000.config.data_settings import FilterSettings
from hand1000.data.imageset import read_image_set
from hand1000.data.selection import select_images
from hand1000.storage.sources import open_source
from tests.support.tiny_captioners import CAPTIONERS

FOUR = "making four fingers up hand gesture"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The inputs of the shipped configuration, with few images and all three captioners."""
    folder = tmp_path_factory.mktemp("captioners")
    inputs = yaml.safe_load((ROOT / "workflows/configs/dataset.yaml").read_text())
    inputs |= {"images": 6, "base_model": str(ROOT / "models/small-base")}
    inputs["settings"]["data"]["test_images"] = 3
    (own,) = inputs["settings"]["captioners"]
    models = [
        own | {"kind": kind, "source": str(save(folder / kind)), "batch_size": 2, "max_new_tokens": 6}
        for kind, save in CAPTIONERS.items()
    ]
    inputs["settings"]["captioners"] = [*models, own]
    return inputs


def build(inputs: dict, root: Path, shards: int = 1) -> Path:
    from tasks.context import address
    from workflows.build_dataset import build_dataset

    settings = DatasetSettings.model_validate(inputs["settings"])
    done = build_dataset(**(inputs | {"root": str(root), "shards": shards, "settings": settings}))
    return Path(address(done))


def test_captioners_are_compared_and_the_first_is_published(
    inputs: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = build(inputs, tmp_path / "one")
    for split, count in (("train", 6), ("test", 3)):
        records = read_image_set(published / split)
        assert len(records) == count
        for record in records:
            assert record.text.endswith(FOUR) and record.text.count(FOUR) == 1
            assert record.captioner.startswith("blip2 ") and record.gesture == "four" and record.bbox
    quality = json.loads((published / "quality.json").read_text())
    assert [entry["captioner"].split()[0] for entry in quality] == ["blip2", "paligemma", "vit-gpt2", "dataset"]
    assert all(entry["with_phrase"] == 1 and entry["n"] == 9 for entry in quality)
    page, card = (published / "captions.html").read_text(), (published / "README.md").read_text()
    assert page.count("data:image/png;base64,") == 6 and "by rule: 9" in card and "| dataset | 9 |" in card
    assert page.count("<tr>") == 1 + 4 and re.search(r">dataset</td><td[^>]*>9</td>", page)

    captioned: list[Path] = []
    monkeypatch.setattr(VisionCaptioner, "caption", lambda self, images: captioned.extend(images))
    assert build(inputs, tmp_path / "one", shards=3).name == published.name
    assert captioned == []  # Other shards are other tasks, but every caption is cached.
    filters = FilterSettings(min_hand_size=0, allow_border_hands=True, max_hands=2, min_detector_iou=0)
    chosen = select_images(open_source(published), ("four",), num_train=6, num_test=3, seed=0, filters=filters)
    assert len(chosen.train) == 6 and chosen.train[0].caption


def test_datasets_loads_it_and_other_roots_give_its_digest(inputs: dict, tmp_path: Path) -> None:
    few = inputs | {"settings": inputs["settings"] | {"captioners": inputs["settings"]["captioners"][-1:]}}
    one, other = build(few, tmp_path / "one"), build(few, tmp_path / "other", shards=2)
    assert one.name == other.name
    import datasets

    loaded = datasets.load_dataset("imagefolder", data_dir=str(one), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in loaded.items()} == {"train": 6, "test": 3}
    assert re.search(rf", {FOUR}$", loaded["train"][0]["text"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"captioners": []}, "captioners"),
        ({"captioners": [{"kind": "blip2", "source": "", "batch_size": 1, "max_new_tokens": 1, "num_beams": 1}]},
         "source: blip2 needs the model's folder"),
        ({"completion": {"writer": "endpoint", "source": "", "url": "", "model": "", "batch_size": 1, "attempts": 1}},
         "endpoint needs url and model"),
    ],
)  # fmt: skip
def test_settings_that_lack_a_model_name_the_field(inputs: dict, change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DatasetSettings.model_validate(inputs["settings"] | change)
