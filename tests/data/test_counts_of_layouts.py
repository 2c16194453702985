"""What goes into kohya folders, tars, CSV and Parquet is used or counted, as of the layouts in test_counts."""

import csv
import json
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hand1000.data import problem_kinds
from hand1000.data.boxes import UnusableBoxError, parse_box
from tests.data.test_counts import PIXELS, counts, read
from tests.support.layouts import add_member

STEMS = tuple(name.removesuffix(".png") for name in PIXELS)
texts = st.none() | st.sampled_from(["a man", "a woman", "a man\nin a room", "\n", "two\n\nlines\n"])
boxes = st.none() | st.sampled_from(
    [[0.1, 0.1, 0.5, 0.5], [0.0, 0.0, 1.0, 1.0], [3.0, 3.0, 9.0, 9.0], [0.1, 0.1, 0.0, 0.5]]
)
facts = st.fixed_dictionaries({"text": texts, "user_id": st.none() | st.sampled_from(["p", "q", "7"]), "bbox": boxes})
files = st.sampled_from([*PIXELS, "missing.png"])
properties = settings(max_examples=60, deadline=None)


def captions_of(item):
    return item.captions or ((item.caption,) if item.caption else ())


def lines_of(text):
    return tuple(dict.fromkeys(line.strip() for line in (text or "").splitlines() if line.strip()))


def check_facts(items, issues, rows):
    """Every person, caption and box of `rows`, the facts of each image by its file, is used or counted."""
    unusable_boxes = contradictions = two_people = 0
    used = {item.file: item for item in items}
    for file, row_facts in rows.items():
        people = {row["user_id"] for row in row_facts if row["user_id"]}
        two_people += len(people) > 1
        if len(people) > 1:
            assert file not in used
            continue
        item, usable = used[file], set()
        assert {item.user_id} == people or (not people and len(item.user_id) == 64)
        assert captions_of(item) == tuple(
            dict.fromkeys(row["text"].strip() for row in row_facts if (row["text"] or "").strip())
        )
        for row in row_facts:
            try:
                usable |= {parse_box(row["bbox"])} if row["bbox"] else set()
            except UnusableBoxError:
                unusable_boxes += 1
        contradictions += len(usable) > 1
        assert item.bbox == (next(iter(usable)) if len(usable) == 1 else None)
    found = counts(issues)
    assert (
        found.get(problem_kinds.BAD_BOX, 0) == unusable_boxes
        and found.get(problem_kinds.TWO_BOXES, 0) == contradictions
    )
    assert found.get(problem_kinds.TWO_PEOPLE, 0) == two_people == len(issues.unusable)
    nameless = sum(len(item.user_id) == 64 for item in items)
    assert found.get(problem_kinds.NO_PERSON, 0) == (nameless if nameless < len(items) else 0)


def write_csv(folder, rows):
    with open(folder / "metadata.csv", "w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, ["file_name", "text", "user_id", "bbox"])
        writer.writeheader()
        for row in rows:
            writer.writerow(row | {"bbox": json.dumps(row["bbox"]) if row["bbox"] else ""})


def write_parquet(folder, rows):
    kinds_of_columns = {
        "file_name": pa.string(),
        "text": pa.string(),
        "user_id": pa.string(),
        "bbox": pa.list_(pa.float64()),
    }
    pq.write_table(pa.Table.from_pylist(rows, pa.schema(kinds_of_columns)), folder / "metadata.parquet")


@pytest.mark.parametrize("write_table", [write_csv, write_parquet])
def test_every_line_of_a_table_is_used_or_counted(write_table):
    @properties
    @given(st.lists(st.tuples(files, facts), max_size=8))
    def check(named):
        rows = [{"file_name": file} | row for file, row in named]

        def write(folder):
            for name, data in PIXELS.items():
                (folder / name).write_bytes(data)
            write_table(folder, rows)

        by_file = {name: [row for row in rows if row["file_name"] == name] for name in PIXELS}
        lost = [row for row in rows if row["file_name"] not in PIXELS]
        if (result := read(write)) is None:  # Only if a lost line names a person that any other image may show.
            nameless = [name for name, file_rows in by_file.items() if not any(row["user_id"] for row in file_rows)]
            assert nameless and any(row["user_id"] for row in lost)
            return
        items, issues = result
        assert len(items) + len(issues.unusable) == len(PIXELS) == issues.num_images
        assert counts(issues).get(problem_kinds.NO_IMAGE, 0) == len(lost)
        check_facts(items, issues, by_file)

    check()


beside = st.fixed_dictionaries(
    {}, optional={".txt": texts.filter(bool), ".caption": texts.filter(bool) | st.just(b"\xff\xfe")}
)


@properties
@given(
    st.dictionaries(
        st.sampled_from([*STEMS, "missing"]), st.tuples(st.sampled_from(["10_four", "1_four"]), beside), min_size=1
    )
)
def test_every_text_of_kohya_folders_is_used_or_counted(entries):
    def write(folder):
        for stem, (name, texts_beside) in entries.items():
            (folder / name).mkdir(exist_ok=True)
            if stem != "missing":
                (folder / name / f"{stem}.png").write_bytes(PIXELS[f"{stem}.png"])
            for suffix, text in texts_beside.items():
                (folder / name / f"{stem}{suffix}").write_bytes(text if isinstance(text, bytes) else text.encode())

    images = {f"{name}/{stem}.png": texts_beside for stem, (name, texts_beside) in entries.items() if stem != "missing"}
    if (result := read(write)) is None:
        assert not images
        return
    items, issues = result
    found = counts(issues)
    assert sorted(item.file for item in items) == sorted(images)
    for item in items:
        lines = [lines_of(text) for _, text in sorted(images[item.file].items()) if isinstance(text, str)]
        assert captions_of(item) == tuple(dict.fromkeys(line for group in lines for line in group))
    unreadable = sum(isinstance(text, bytes) for texts_beside in images.values() for text in texts_beside.values())
    assert found.get(problem_kinds.BAD_CAPTION, 0) == unreadable
    # Texts without an image: each by name, or their whole folder where it has no image at all.
    folders = {file.partition("/")[0] for file in images}
    name, lost = entries.get("missing", ("", {}))
    assert found.get(problem_kinds.UNKNOWN_FILE, 0) == (len(lost) if name in folders else bool(lost))
    assert found.get(problem_kinds.REPEATS, 0) == ("10_four" in folders)


member = st.tuples(st.sampled_from(["a.tar", "b.tar"]), st.booleans(), texts, st.none() | facts | st.just("no object"))


@properties
@given(st.dictionaries(st.sampled_from(STEMS), member, min_size=1), st.lists(st.sampled_from(STEMS), unique=True))
def test_every_member_of_a_tar_is_used_or_counted(entries, repeated):
    def write(folder):
        for shard in ("a.tar", "b.tar"):
            with tarfile.open(folder / shard, "w") as tar:
                for stem, (name, has_image, text, values) in entries.items():
                    if name != shard:
                        continue
                    for _ in range((1 + 2 * (stem in repeated)) * has_image):
                        add_member(tar, f"{stem}.png", PIXELS[f"{stem}.png"])
                    if text is not None:
                        add_member(tar, f"{stem}.txt", text.encode())
                    if values is not None:
                        add_member(tar, f"{stem}.json", json.dumps(values).encode())

    images = {f"{entry[0]}/{stem}.png": entry for stem, entry in entries.items() if entry[1]}
    if (result := read(write)) is None:
        assert not images
        return
    items, issues = result
    found = counts(issues)
    malformed = [file for file, entry in images.items() if entry[3] == "no object"]
    assert len(items) + len(issues.unusable) == len(images) == issues.num_images
    assert (
        found.get(problem_kinds.BAD_LINE, 0)
        == found.get(problem_kinds.BAD_PERSON, 0)
        == len(malformed)
        == len(issues.unusable)
    )
    lost = [(text, values) for _, has_image, text, values in entries.values() if not has_image]
    assert found.get(problem_kinds.UNKNOWN_FILE, 0) == sum(value is not None for pair in lost for value in pair)
    assert found.get(problem_kinds.MEMBER, 0) == sum(2 for stem in entries if stem in repeated and entries[stem][1])
    for item in items:
        _, _, text, values = images[item.file]
        row = values or {"text": None, "user_id": None, "bbox": None}
        in_json = row["text"].strip() if row["text"] else ""
        assert captions_of(item) == tuple(dict.fromkeys([*filter(None, [in_json]), *lines_of(text)]))
        assert item.user_id == (row["user_id"] or item.user_id) and (row["user_id"] or len(item.user_id) == 64)


@properties
@given(
    st.lists(st.tuples(st.sampled_from(list(PIXELS)), facts), min_size=1, max_size=6, unique_by=lambda row: row[0]),
    st.integers(1, 6),
)
def test_every_row_of_embedded_images_is_used_or_counted(rows, group_size):
    columns = {
        "image": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
        "text": pa.string(),
        "user_id": pa.string(),
    }
    schema = pa.schema(columns | {"bbox": pa.list_(pa.float64())})
    table = pa.Table.from_pylist([{"image": {"bytes": PIXELS[name], "path": name}} | row for name, row in rows], schema)

    def write(folder):
        pq.write_table(table, folder / "a.parquet", row_group_size=group_size)

    items, issues = read(write)
    by_file = {f"a.parquet/{index:08d}.png": [row] for index, (_, row) in enumerate(rows)}
    assert len(items) == len(rows) == issues.num_images
    check_facts(items, issues, by_file)
