"""Caption records in a file: one JSON line per image."""

from pathlib import Path

import pytest

from hand1000.captions.records import CaptionRecord, read_caption_records, write_caption_records
from hand1000.core.errors import Hand1000Error

LINE = '{"file_name":"a","caption":"b","captioner":"c","text":"b, d","writer":"rule"}'


def make_record(name: str, caption: str) -> CaptionRecord:
    return CaptionRecord(file_name=name, caption=caption, captioner="someone@1", text=f"{caption}, d", writer="rule")


def test_records_of_all_shards_come_back_by_name(tmp_path: Path) -> None:
    first = [make_record("b.png", 'a "man"'), make_record("a.png", "a woman\u2028")]
    second = [make_record("c.png", "a child")]
    paths = [tmp_path / "0.jsonl", tmp_path / "1.jsonl"]
    write_caption_records(paths[0], first)
    write_caption_records(paths[1], second)
    assert read_caption_records(reversed(paths)) == {record.file_name: record for record in first + second}
    text = paths[0].read_text()
    assert text.index("a.png") < text.index("b.png") and text.count("someone@1") == 2


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (f'{LINE}\n{{"file_name":"b"}}', "line 2: text: missing"),
        (f"{LINE}\n" * 2, "line 2: a appears twice"),
        (LINE.replace("}", ',"more":1}'), "line 1: more: "),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, lines: str, message: str) -> None:
    (tmp_path / "train.jsonl").write_text(lines)
    with pytest.raises(Hand1000Error, match=f"train.jsonl: {message}"):
        read_caption_records([tmp_path / "train.jsonl"])
