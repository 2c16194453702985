"""The captioning stage: which captions it keeps, what it asks models for, and what later stages read."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from hand1000.captions.captioners import VisionCaptioner
from hand1000.captions.records import write_caption_records
from hand1000.captions.writers import EndpointWriter, Message
from hand1000.config.caption_settings import CaptionerSettings, CaptionSettings, CompletionSettings
from hand1000.core.errors import Hand1000Error
from hand1000.data.captioning import CaptioningStage, read_captioned_split
from hand1000.data.imageset import ImageRecord, read_image_set, write_metadata
from hand1000.gestures import PHRASES
from hand1000.storage.artifacts import open_store
from tests.support.tiny_captioners import CAPTIONERS

BASE = str(Path(__file__).parents[2] / "models/small-base")
GESTURES = ("four", "ok", "four")
CAPTIONS = ("a man\n", " ", "a woman giving a thumbs up")
CAPTIONER = CaptionerSettings(kind="dataset", source="", batch_size=2, max_new_tokens=40, num_beams=1)
COMPLETION = CompletionSettings(writer="rule", source="", url="", model="", batch_size=2, attempts=2)
ENDPOINT = COMPLETION.model_copy(update={"writer": "endpoint", "url": "http://localhost/v1", "model": "llama"})
BY_RULE = CaptionSettings(captioner=CAPTIONER, completion=COMPLETION, training_phrase="own", test_words="")


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A dataset as `prepare_data` leaves it: three images of two gestures, one without a caption."""
    folder = tmp_path / "dataset/train"
    folder.mkdir(parents=True)
    records = []
    for index, (gesture, caption) in enumerate(zip(GESTURES, CAPTIONS, strict=True)):
        Image.new("RGB", (16, 16), (index, 0, 0)).save(folder / f"{index}.png")
        records.append(
            ImageRecord(
                file_name=f"{index}.png", caption=caption, gesture=gesture, user_id=str(index), source=f"{index}" * 64
            )
        )
    write_metadata(folder, records)
    return tmp_path / "dataset"


def caption(dataset: Path, stage: CaptioningStage, shard: slice = slice(None)):
    store = open_store(str(dataset.parent / "root"))
    records = read_image_set(dataset / "train")[shard]
    return stage.caption_records(dataset / "train", records, store, lambda *_: None)


def test_captions_of_the_data_are_kept_and_completed(dataset: Path) -> None:
    records = caption(dataset, CaptioningStage(BY_RULE, BASE))
    assert [record.caption for record in records] == ["a man", "a photo of a person", "a woman giving a thumbs up"]
    assert [record.text for record in records] == [
        f"a man, {PHRASES['four']}",
        f"a photo of a person, {PHRASES['ok']}",
        f"a woman, {PHRASES['four']}",
    ]
    assert {(record.captioner, record.writer) for record in records} == {("dataset", "rule")}


def test_a_model_captions_the_images_without_a_caption_alone(dataset: Path, tmp_path: Path) -> None:
    source = str(CAPTIONERS["blip2"](tmp_path / "blip2"))
    settings = BY_RULE.model_copy(
        update={"captioner": CAPTIONER.model_copy(update={"kind": "blip2", "source": source})}
    )
    stages = [CaptioningStage(settings, BASE, keep_captions=keep) for keep in (True, False)]
    kept, compared = (caption(dataset, stage) for stage in stages)
    assert [record.captioner.split()[0] for record in kept] == ["dataset", "blip2", "dataset"]
    assert [record.caption for record in kept] == ["a man", compared[1].caption, "a woman giving a thumbs up"]
    assert {record.captioner for record in compared} == {kept[1].captioner}
    assert not {record.caption for record in compared} & {"a man", "a woman giving a thumbs up"}
    assert stages[0].cache_key_fields() != stages[1].cache_key_fields()
    assert all(record.text.endswith(PHRASES[gesture]) for record, gesture in zip(kept, GESTURES, strict=True))


def test_a_text_longer_than_the_encoder_keeps_its_phrase(dataset: Path) -> None:
    (record,) = read_image_set(dataset / "train")[:1]
    long = record.model_copy(update={"caption": "a red hand " * 30})
    stage = CaptioningStage(BY_RULE, BASE)
    (finished,) = stage.caption_records(dataset / "train", [long], open_store(str(dataset)), lambda *_: None)
    assert finished.shortened and finished.text.endswith(PHRASES["four"])


def test_each_image_is_captioned_and_completed_once(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captioned: list[str] = []
    asked: list[str] = []

    def write_name(self: VisionCaptioner, images: Sequence[Path]) -> list[str]:
        captioned.extend(image.name for image in images)
        return [f"image {image.stem}" for image in images]

    def answer(self: EndpointWriter, chats: Sequence[Sequence[Message]], attempt: int) -> list[str]:
        data = [json.loads(chat[1]["content"]) for chat in chats]
        asked.extend(row["caption"] for row in data)
        return [f"{row['caption']}, {row['phrase']}" for row in data]

    monkeypatch.setattr(VisionCaptioner, "caption", write_name)
    monkeypatch.setattr(EndpointWriter, "answer", answer)
    blip2 = CAPTIONER.model_copy(update={"kind": "blip2", "source": str(CAPTIONERS["blip2"](tmp_path / "blip2"))})
    settings = BY_RULE.model_copy(update={"captioner": blip2, "completion": ENDPOINT})
    first = caption(dataset, CaptioningStage(settings, BASE, keep_captions=False), slice(1))
    records = caption(dataset, CaptioningStage(settings, BASE, keep_captions=False))
    assert records[:1] == first and len(records) == 3
    assert sorted(captioned) == ["0.png", "1.png", "2.png"]
    assert sorted(asked) == ["image 0", "image 1", "image 2"]
    assert {record.writer for record in records} == {"llama at an endpoint"}
    assert records[1].text == f"image 1, {PHRASES['ok']}" and records[1].captioner.startswith("blip2 ")


def test_the_cache_key_names_models_and_options_alone() -> None:
    plain = CaptioningStage(BY_RULE, BASE).cache_key_fields()
    captioner = CAPTIONER.model_copy(update={"num_beams": 4})
    unused = BY_RULE.model_copy(
        update={"captioner": captioner, "completion": COMPLETION.model_copy(update={"attempts": 5})}
    )
    assert CaptioningStage(unused, BASE).cache_key_fields() == plain
    stage = CaptioningStage(BY_RULE.model_copy(update={"completion": ENDPOINT}), BASE, "secret-key")
    assert stage.cache_key_fields()["writer"] == "llama at an endpoint"
    assert "secret-key" not in repr(stage) + str(stage.cache_key_fields())


def test_later_stages_read_the_texts_of_all_shards(dataset: Path, tmp_path: Path) -> None:
    stage = CaptioningStage(BY_RULE, BASE)
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder, shard in zip(folders, (slice(1, 3), slice(1)), strict=True):
        write_caption_records(folder / "train.jsonl", caption(dataset, stage, shard))
    records = read_captioned_split(dataset, "train", folders)
    assert [record.text.rpartition(", ")[2] for record in records] == [PHRASES[gesture] for gesture in GESTURES]
    assert records[0].user_id == "0" and records[0].captioner == "dataset"
    with pytest.raises(Hand1000Error, match=r"train: 0.png: no caption \(1 images have none\)"):
        read_captioned_split(dataset, "train", folders[:1])


def test_training_captions_can_name_no_gesture_or_any(dataset: Path) -> None:
    records = read_image_set(dataset / "train")
    own = caption(dataset, CaptioningStage(BY_RULE, BASE))

    def vary(split: str, **changes: str) -> list[str]:
        stage = CaptioningStage(BY_RULE.model_copy(update=changes), BASE)
        varied = stage.vary_texts(own, records, split)
        assert [record.caption for record in varied] == [record.caption for record in own]
        # A shard varies its captions as the whole split does.
        assert stage.vary_texts(own[1:], records, split) == varied[1:]
        return [record.text for record in varied]

    texts = [record.text for record in own]
    assert vary("train") == vary("test") == vary("test", training_phrase="none") == texts
    assert vary("train", training_phrase="none") == ["a man", "a photo of a person", "a woman"]
    shuffled = vary("train", training_phrase="shuffled")
    assert [text.partition(", ")[0] for text in shuffled] == ["a man", "a photo of a person", "a woman"]
    assert all(text.endswith((PHRASES["four"], PHRASES["ok"])) for text in shuffled) and shuffled != texts
    assert vary("test", test_words="in the rain")[0] == f"a man, in the rain, {PHRASES['four']}"
    assert vary("train", test_words="in the rain") == texts
    assert (
        CaptioningStage(BY_RULE.model_copy(update={"test_words": "x"}), BASE).cache_key_fields()
        != CaptioningStage(BY_RULE, BASE).cache_key_fields()
    )
    stage = CaptioningStage(BY_RULE.model_copy(update={"training_phrase": "shuffled"}), BASE)
    with pytest.raises(Hand1000Error, match="the phrase of ok alone cannot be shuffled"):
        stage.vary_texts(own[1:2], records[1:2], "train")


def test_a_long_prompt_keeps_its_phrase_beside_new_words(dataset: Path) -> None:
    (record,) = read_image_set(dataset / "train")[:1]
    long = record.model_copy(update={"caption": "word " * 100})
    stage = CaptioningStage(BY_RULE.model_copy(update={"test_words": "in the rain"}), BASE)
    finished = stage.caption_records(dataset / "train", [long], open_store(str(dataset)), lambda *_: None)
    (varied,) = stage.vary_texts(finished, [long], "test")
    assert varied.text.endswith(PHRASES["four"]) and varied.shortened and len(varied.text) <= len(finished[0].text) + 12
