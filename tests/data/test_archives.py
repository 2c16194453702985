"""Archives as folders: webdataset tars and Parquet with embedded images, in a folder, on S3 and from the hub."""

import json
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from hand1000.core.errors import Hand1000Error
from hand1000.data import problem_kinds
from hand1000.data.check import check_source
from hand1000.data.sources.opening import open_dataset
from tests.support.hagrid_source import people, select
from tests.support.layouts import LAYOUTS, add_member, facts, png

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_members_that_are_not_safe_or_not_understood_are_counted(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for index in range(4):
            add_member(tar, f"./x/{index}.png", png(index))
        for name in ("../out.png", "/abs.png", "x/../y.png", "x/0.png"):
            add_member(tar, name, png(5))
        link = tarfile.TarInfo("x/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        add_member(tar, "x/0.cls", b"3")
        add_member(tar, "x/1.json", b"[]")
        add_member(tar, "x/._2.png", b"")
    report = check_source(open_dataset(tmp_path), "four")
    problems = {problem.kind: problem.count for problem in report.problems}
    assert problems == {
        problem_kinds.UNKNOWN_FILE: 1,
        problem_kinds.BAD_LINE: 1,
        problem_kinds.BAD_PERSON: 1,
        problem_kinds.MEMBER: 5,
    }
    assert report.images == 3 and [skipped.file for skipped in report.malformed] == ["four/1.png"]


@pytest.mark.parametrize("name", ["webdataset tars", "Parquet with embedded images"])
def test_several_threads_may_read_one_archive(tmp_path, name):
    """A ParquetFile that two threads read at once fails now and then (pyarrow 25.0.1)."""
    LAYOUTS[name][0](tmp_path)
    chosen = select(tmp_path, 6, 2)
    pixels = {png(index) for index in range(8)}

    def read(file):
        with chosen.source.local_path(file) as path:
            return path.read_bytes()

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(read, [item.file for item in chosen.train] * 100)) <= pixels


def test_an_archive_that_is_none_is_named(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"x" * 2000)
    with pytest.raises(Hand1000Error, match="a.tar: cannot be read as a tar .*; download it or pack it again"):
        select(tmp_path, 1, 1)
    (tmp_path / "a.tar").rename(tmp_path / "a.parquet")
    with pytest.raises(Hand1000Error, match="a.parquet: cannot be read as Parquet"):
        select(tmp_path, 1, 1)
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"x": [1]}), tmp_path / "a.parquet")
    with pytest.raises(Hand1000Error, match="no column of images with bytes and path; call a table about"):
        select(tmp_path, 1, 1)


def test_each_row_of_a_large_group_is_its_own_image(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pixels = [png(index) for index in range(40)]
    table = pa.Table.from_pylist([{"image": {"bytes": data, "path": None}} for data in pixels])
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=37)
    chosen = select(tmp_path, 39, 1)
    for item in (*chosen.train, *chosen.test):
        with chosen.source.local_path(item.file) as path:
            assert path.read_bytes() == pixels[int(Path(item.file).stem)]


@pytest.mark.parametrize("column", ["image.bytes", "image.path", "text"])
def test_parquet_with_a_damaged_page_is_named(tmp_path, column):
    import pyarrow.parquet as pq

    LAYOUTS["Parquet with embedded images"][0](tmp_path)
    path = next((tmp_path / "data").glob("train*"))
    group = pq.ParquetFile(path).metadata.row_group(1)
    chunk = next(part for part in map(group.column, range(group.num_columns)) if part.path_in_schema == column)
    data = bytearray(path.read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    data[start : start + 8] = b"\xff" * 8
    path.write_bytes(data)
    with pytest.raises(Hand1000Error, match=r"train-\S+parquet: cannot be read as Parquet .*; download it or write it"):
        check_source(open_dataset(tmp_path), "four")


def test_a_split_of_shards_is_kept(tmp_path):
    for split, indices in (("train", range(4)), ("val", range(4, 6)), ("test", range(6, 8))):
        with tarfile.open(tmp_path / f"{split}-0000.tar", "w") as tar:
            for index in indices:
                add_member(tar, f"{index}.png", png(index))
                add_member(tar, f"{index}.json", json.dumps(facts(index)).encode())
    chosen = select(tmp_path, 6, 2)
    assert people(chosen.train) == {"p0", "p1", "p2"} and people(chosen.test) == {"p3"}


@pytest.mark.parametrize("name", ["webdataset tars", "Parquet with embedded images"])
def test_archives_on_s3_are_read_like_those_in_a_folder(tmp_path, s3_root, name):
    from tests.storage.test_sources import prepared, upload

    LAYOUTS[name][0](tmp_path / "source")
    upload(tmp_path / "source", s3_root)
    assert prepared(s3_root, tmp_path / "s3", 5, 2) == prepared(tmp_path / "source", tmp_path / "local", 5, 2)


class HubHandler(BaseHTTPRequestHandler):
    """A hub with one dataset, the folder `root`, at one commit."""

    root: Path
    requests: list[str]

    def do_HEAD(self):
        self.answer(send_body=False)

    def do_GET(self):
        self.answer(send_body=True)

    def answer(self, send_body):
        self.requests.append(self.path)
        prefix, files = f"/datasets/me/hands/resolve/{COMMIT}/", [p for p in self.root.rglob("*") if p.is_file()]
        path = self.root / self.path.partition("?")[0].removeprefix(prefix)
        if self.path.partition("?")[0] == f"/api/datasets/me/hands/revision/{COMMIT}":
            siblings = [{"rfilename": str(file.relative_to(self.root))} for file in files]
            body = json.dumps({"id": "me/hands", "sha": COMMIT, "siblings": siblings}).encode()
        elif self.path.startswith(f"/api/datasets/me/hands/tree/{COMMIT}"):
            entries = [
                {"type": "file", "path": str(file.relative_to(self.root)), "size": file.stat().st_size, "oid": "0" * 40}
                for file in files
            ]
            body = json.dumps(entries).encode()
        elif self.path.startswith(prefix) and path in files:
            body = path.read_bytes()
        else:
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{path.name}-{len(body)}"')
        self.end_headers()
        if send_body:
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(tmp_path, monkeypatch):
    HubHandler.root, HubHandler.requests = tmp_path / "repository", []
    server = HTTPServer(("127.0.0.1", 0), HubHandler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield HubHandler
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_dataset_of_the_hub_is_read_at_its_commit(tmp_path, hub):
    """`datasets` writes the repository, as on the hub, and reads the same rows of it."""
    import datasets

    for split, indices in (("train", range(6)), ("test", range(6, 8))):
        rows = [{"image": {"bytes": png(index), "path": None}, **facts(index)} for index in indices]
        features = datasets.Features(
            image=datasets.Image(), user_id=datasets.Value("string"), text=datasets.Value("string"),
            bbox=datasets.List(datasets.Value("float64")),
        )  # fmt: skip
        target = tmp_path / "repository" / "data" / f"{split}-00000-of-00001.parquet"
        target.parent.mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_list(rows, features=features).to_parquet(target)
    (tmp_path / "repository" / "hands.py").write_text("raise SystemExit")
    chosen = select(f"me/hands@{COMMIT}", 6, 2)
    loaded = datasets.load_dataset(str(tmp_path / "repository"), cache_dir=str(tmp_path / "datasets"))
    assert sorted(item.caption for item in chosen.train) == sorted(loaded["train"]["text"])
    assert people(chosen.test) == set(loaded["test"]["user_id"])
    with chosen.source.local_path(chosen.train[0].file) as path:
        assert path.read_bytes() in {png(index) for index in range(6)}
    assert chosen.cache_key_fields() == select(f"me/hands@{COMMIT}", 6, 2).cache_key_fields()
    assert not any("hands.py" in path for path in hub.requests)


def test_an_address_on_the_hub_that_is_wrong_is_one_line(hub):
    for address, message in (
        ("me/hands", "no such folder; a dataset of the hub is given as OWNER/NAME@COMMIT"),
        ("me/hands@main", "no such folder; a dataset of the hub is given as OWNER/NAME@COMMIT"),
        (f"me/other@{COMMIT}", "the hub has no such dataset, or cannot be reached .*; correct the name"),
    ):
        with pytest.raises(Hand1000Error, match=message) as caught:
            open_dataset(address)
        assert "\n" not in str(caught.value)
