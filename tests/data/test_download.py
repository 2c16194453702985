"""HaGRID from a real HTTP server that drops connections, changes its files and refuses."""

import io
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest
from PIL import Image

from hand1000.cli import main as cli
from hand1000.config.data_settings import FilterSettings
from hand1000.core.errors import Hand1000Error
from hand1000.core.progress import ProgressBar
from hand1000.data import download as fetch
from hand1000.data.download import ADDRESSES, fetch_hagrid
from hand1000.data.selection import select_images
from hand1000.gestures import HAGRID_V1, PHRASES
from hand1000.storage import http as http_file
from hand1000.storage.records import write_record
from hand1000.storage.sources import open_source
from tests.support.http_server import FileServer, file_server

ANNOTATIONS, SMALL = ADDRESSES[2, "annotations"][1], ADDRESSES[2, "512"][1]
FOUR = ADDRESSES[1, "full"][1].format(gesture="four")  # Version 2 has it there too.
GRIP = ADDRESSES[2, "full"][1].format(gesture="grip")
USERS = {"train": "abcdef", "val": "gh", "test": "ijk"}


def jpeg(seed: int, side: int) -> bytes:
    noise = Image.frombytes("RGB", (side, side), random.Random(seed).randbytes(3 * side * side))
    buffer = io.BytesIO()
    noise.save(buffer, "jpeg")
    return buffer.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def hagrid(gestures: tuple[str, ...]) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Images by `gesture/uuid.jpg` and annotations by `split/gesture.json`, as HaGRID's archives hold them."""
    rng = random.Random(0)
    images, annotations = {}, {}
    for gesture in gestures:
        for split, users in USERS.items():
            entries = {}
            for user in users * 2:
                name = str(uuid.UUID(int=rng.getrandbits(128)))
                images[f"{gesture}/{name}.jpg"] = jpeg(len(images), 64)
                entries[name] = {"bboxes": [[0.4, 0.4, 0.2, 0.2]], "labels": [gesture], "user_id": user}
            annotations[f"{split}/{gesture}.json"] = json.dumps(entries).encode()
    return images, annotations


IMAGES, ANNOTATED = hagrid(("four", "grip", "ok"))
ARCHIVES = {
    ANNOTATIONS: zipped({f"annotations/{name}": data for name, data in ANNOTATED.items()}),
    SMALL: zipped({f"HaGRIDv2_dataset_512/{name}": data for name, data in IMAGES.items()}),
    FOUR: zipped({name: data for name, data in IMAGES.items() if name.startswith("four/")}),
    GRIP: zipped({name: data for name, data in IMAGES.items() if name.startswith("grip/")}),
}


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(http_file, "RETRY_DELAYS", (0.0, 0.0))
    monkeypatch.delenv("HAND1000_HAGRID_URL", raising=False)
    with file_server() as running:
        running.files |= ARCHIVES
        yield running


def silent(what: str):
    return lambda done, total: None


def get(server: FileServer, out: Path, *gestures: str, size: str = "full", version: int = 2, progress=silent) -> None:
    fetch_hagrid(out, gestures or ("four",), version=version, size=size, base_url=server.url, make_progress=progress)


def downloaded(out: Path) -> dict[str, bytes]:
    """All files but those of the work folder, by their paths."""
    files = (path for path in out.rglob("*") if path.is_file() and path.relative_to(out).parts[0] != ".download")
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


def expected(*gestures: str) -> dict[str, bytes]:
    images = {name: data for name, data in IMAGES.items() if name.split("/")[0] in gestures}
    return images | {f"annotations/{name}": data for name, data in ANNOTATED.items() if Path(name).stem in gestures}


def assert_only_a_folder_of_notes(out: Path) -> None:
    assert {path.suffix for path in (out / ".download").iterdir()} <= {".done", ".json", ""}


@pytest.mark.parametrize("size", ["512", "full"])
def test_the_reader_reads_what_was_downloaded(server, tmp_path, size):
    get(server, tmp_path, "four", "grip", size=size)
    assert downloaded(tmp_path) == expected("four", "grip")
    assert_only_a_folder_of_notes(tmp_path)
    everything = FilterSettings(min_hand_size=0, allow_border_hands=True, max_hands=100, min_detector_iou=0)
    chosen = select_images(open_source(tmp_path), ("four",), num_train=16, num_test=6, seed=1, filters=everything)
    assert len(chosen.train) == 16 and len(chosen.test) == 6 and chosen.warnings == () and chosen.unusable == ()
    assert {item.user_id for item in chosen.test} == set(USERS["test"])


def test_images_may_be_anywhere_in_an_archive_of_one_gesture(server, tmp_path):
    names = [name for name in IMAGES if name.startswith("four/")]
    server.files[FOUR] = zipped({f"train_val_four/{Path(name).name}": IMAGES[name] for name in names})
    get(server, tmp_path)
    assert downloaded(tmp_path) == expected("four")


def test_a_shared_archive_sends_requested_members_only(server, tmp_path):
    others = {f"HaGRIDv2_dataset_512/ok/{index}.jpg": random.Random(index).randbytes(100_000) for index in range(20)}
    wanted = {f"HaGRIDv2_dataset_512/{name}": data for name, data in IMAGES.items() if name.startswith("four/")}
    server.files[SMALL] = zipped(others | wanted)
    shown = []
    get(server, tmp_path, size="512", progress=lambda what: lambda done, total: shown.append((what, done, total)))
    assert downloaded(tmp_path) == expected("four")
    assert sum(sent for _, sent in server.requests_for(SMALL)) < 200_000 < len(server.files[SMALL]) / 10
    size = sum(map(len, wanted.values()))
    assert shown[-1] == ("v2-512 four", size, size)


def test_a_server_without_ranges_sends_the_archive_once(server, tmp_path):
    server.ranges = False
    get(server, tmp_path, "four", "grip", size="512")
    assert downloaded(tmp_path) == expected("four", "grip")
    whole = [sent for _, sent in server.requests_for(SMALL)]
    assert len(whole) == 2, "one request for ranges, one download"
    assert_only_a_folder_of_notes(tmp_path)


@pytest.mark.parametrize("size", ["512", "full"])
def test_a_second_run_requests_only_what_is_missing(server, tmp_path, size):
    get(server, tmp_path, size=size)
    before = list(server.requests)
    get(server, tmp_path, size=size)
    assert server.requests == before
    get(server, tmp_path, "four", "grip", size=size)
    assert downloaded(tmp_path) == expected("four", "grip")
    if size == "full":
        assert len(server.requests_for(FOUR)) == 1 and len(server.requests_for(GRIP)) == 1
    (next((tmp_path / "four").iterdir())).unlink()
    get(server, tmp_path, size=size)
    assert downloaded(tmp_path) == expected("four", "grip")


def test_a_dropped_connection_resumes(server, tmp_path):
    server.drops[FOUR] = [1000, 2000]
    get(server, tmp_path)
    assert downloaded(tmp_path) == expected("four")
    size = len(ARCHIVES[FOUR])
    assert server.requests_for(FOUR) == [("bytes=0-", 1000), ("bytes=1000-", 2000), ("bytes=3000-", size - 3000)]

    server.drops[SMALL] = [1, 22, 300, 5000, 9000]
    get(server, tmp_path / "small", size="512")
    assert downloaded(tmp_path / "small") == expected("four")


def start(server: FileServer, out: Path, size: str) -> subprocess.Popen:
    code = "import sys; from hand1000.cli.main import main; sys.exit(main())"
    arguments = ["data", "get", "--gesture", "four", "--out", str(out), "--size", size, "--base-url", server.url]
    return subprocess.Popen([sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE, text=True)


def wait_for(condition) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("size", ["512", "full"])
def test_a_killed_download_resumes(server, tmp_path, size):
    path = FOUR if size == "full" else SMALL
    extra = {f"four/{index}.jpg": random.Random(index).randbytes(500_000) for index in range(6)}
    prefix = "" if size == "full" else "HaGRIDv2_dataset_512/"
    server.files[path] = zipped({f"{prefix}{name}": data for name, data in extra.items()})
    server.stalls[path] = 1_800_000
    process = start(server, tmp_path, size)
    try:
        part = tmp_path / ".download" / "v2-full-four.zip.part"
        if size == "full":
            wait_for(lambda: part.is_file() and part.stat().st_size >= 1_500_000)
        else:
            wait_for(lambda: (tmp_path / "four").is_dir() and len(list((tmp_path / "four").glob("?.jpg"))) >= 3)
        with pytest.raises(Hand1000Error, match="another command downloads into it"):
            get(server, tmp_path, size=size)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    before = part.stat().st_size if size == "full" else {p: p.stat().st_mtime_ns for p in tmp_path.glob("four/?.jpg")}
    num_requests = len(server.requests_for(path))
    server.stalls.clear()
    get(server, tmp_path, size=size)
    assert {name: data for name, data in downloaded(tmp_path).items() if name.startswith("four/")} == extra
    again = server.requests_for(path)[num_requests:]
    if size == "full":
        assert again == [(f"bytes={before}-", len(server.files[path]) - before)]
    else:
        assert len(before) >= 3 and all(p.stat().st_mtime_ns == changed for p, changed in before.items())
        assert sum(sent for _, sent in again) < 2_000_000


def test_a_process_killed_in_unpacking_downloads_nothing_again(server, tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(fetch, "_write_member", killed)
        server.files[ANNOTATIONS] = b""
        (tmp_path / ".download").mkdir()
        for split in USERS:
            target = tmp_path / "annotations" / split / "four.json"
            target.parent.mkdir(parents=True)
            target.write_bytes(ANNOTATED[f"{split}/four.json"])
        write_record(tmp_path / ".download" / "v2-annotations-four.done", {"files": 3})
        with pytest.raises(KeyboardInterrupt):
            get(server, tmp_path)
    before = list(server.requests)
    get(server, tmp_path)
    assert server.requests == before and downloaded(tmp_path) == expected("four")


@pytest.mark.parametrize("if_range", [True, False])
def test_a_file_changed_on_the_server_restarts(server, tmp_path, if_range):
    server.if_range = if_range
    old = ARCHIVES[FOUR]
    server.files[FOUR] = old[:5000] + bytes(len(old) - 5000)
    server.drops[FOUR] = [3000, 0, 0]
    with pytest.raises(Hand1000Error, match="cannot be reached"):
        get(server, tmp_path)
    assert (tmp_path / ".download" / "v2-full-four.zip.part").stat().st_size == 3000
    server.files[FOUR] = old
    num_requests = len(server.requests_for(FOUR))
    get(server, tmp_path)
    assert downloaded(tmp_path) == expected("four")
    assert server.conditions[-2].startswith('"') and server.conditions[-1] is None
    first, *rest = [header for header, _ in server.requests_for(FOUR)[num_requests:]]
    assert first == "bytes=3000-" and rest == ["bytes=0-"]


def test_a_weak_etag_is_no_condition_of_a_range(server, tmp_path):
    server.weak = True
    server.drops[FOUR] = [1000]
    get(server, tmp_path)
    assert downloaded(tmp_path) == expected("four") and set(server.conditions) == {None}


def test_another_mirror_restarts(server, tmp_path):
    server.drops[FOUR] = [1000, 0, 0]
    with pytest.raises(Hand1000Error, match="cannot be reached"):
        get(server, tmp_path)
    server.files[f"mirror/{FOUR}"] = ARCHIVES[FOUR]
    server.url += "/mirror"
    get(server, tmp_path)
    assert downloaded(tmp_path) == expected("four") and server.requests[-1][:2] == (f"mirror/{FOUR}", "bytes=0-")


def test_a_file_that_changes_while_it_is_read_restarts(server, tmp_path, monkeypatch):
    write_member = fetch._write_member

    def change_first(members, info, path):
        if path.suffix == ".jpg":
            server.files[SMALL] = zipped({f"other/{name}": data for name, data in IMAGES.items()})
        write_member(members, info, path)

    monkeypatch.setattr(fetch, "_write_member", change_first)
    get(server, tmp_path, size="512")
    assert downloaded(tmp_path) == expected("four")


def test_the_error_names_a_file_that_keeps_changing(server, tmp_path):
    server.ranges = False
    server.drops[FOUR] = [1000] * 10
    with pytest.raises(Hand1000Error, match=f"{FOUR}: started 3 times: .* from the beginning only; give a mirror"):
        get(server, tmp_path)


def test_members_that_lead_outside_and_links_are_ignored(server, tmp_path):
    out = tmp_path / "deep" / "out"
    absolute = tmp_path / "absolute" / "four" / "a.jpg"
    link = zipfile.ZipInfo("four/link.jpg")
    link.external_attr = 0o120777 << 16
    buffer = io.BytesIO(ARCHIVES[FOUR])
    with zipfile.ZipFile(buffer, "a") as archive:
        elsewhere = ["../x.jpg", "four/../../x.jpg", str(absolute), "four\\..\\..\\x.jpg"]
        for name in [*elsewhere, "four/.hidden.jpg", "four/x.py"]:
            archive.writestr(name, b"evil")
        archive.writestr(link, "/etc/hostname")
    server.files[FOUR] = buffer.getvalue()
    get(server, out)
    assert downloaded(out) == expected("four")
    assert [path.name for path in tmp_path.iterdir()] == ["deep"] and len(list((tmp_path / "deep").iterdir())) == 1


def damaged() -> bytes:
    """A byte of a member's data is another."""
    data = bytearray(ARCHIVES[FOUR])
    data[1000] ^= 0xFF
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (ARCHIVES[FOUR][:-100], "not a zip file"),
        (b"<html>sign in</html>", "not a zip file"),
        (damaged(), "CRC|invalid|decompressing"),
        (zipped({"readme.txt": b"x"}), "it has no images of four"),
    ],
)
def test_a_damaged_archive_is_named_and_downloaded_again(server, tmp_path, data, reason):
    server.files[FOUR] = data
    with pytest.raises(Hand1000Error, match=reason) as caught:
        get(server, tmp_path)
    assert "\n" not in str(caught.value)
    server.files[FOUR] = ARCHIVES[FOUR]
    assert not list(tmp_path.rglob("*.part")) and not list(tmp_path.rglob("*.zip"))
    get(server, tmp_path)
    assert downloaded(tmp_path) == expected("four")


@pytest.mark.parametrize("data", [ARCHIVES[SMALL][:-100], b"<html></html>"])
def test_the_error_names_an_archive_damaged_on_the_server(server, tmp_path, data):
    server.files[SMALL] = data
    with pytest.raises(Hand1000Error, match=rf"{SMALL}: damaged on the server \(.* not a zip file\); give a mir"):
        get(server, tmp_path, size="512")


def test_a_member_that_grows_too_large_is_not_unpacked(server, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "_MAX_IMAGE_BYTES", 1000)
    with pytest.raises(Hand1000Error, match=r"four/.*\.jpg has \d+ bytes, more than 1000\) and removed"):
        get(server, tmp_path)
    assert not (tmp_path / "four").exists()


@pytest.mark.parametrize(
    ("codes", "reason"),
    [
        ([404], "HTTP 404: no such file; it may have moved; give a mirror with --base-url or HAND1000_HAGRID_URL"),
        ([403], "HTTP 403: access denied"),
        ([418], "HTTP 418: the server refuses"),
        ([503] * 3, "the server answers HTTP 503; run the same command later to continue"),
    ],
)
def test_a_refusal_names_the_address_and_a_remedy(server, tmp_path, codes, reason):
    server.status[FOUR] = codes
    with pytest.raises(Hand1000Error, match=reason) as caught:
        get(server, tmp_path)
    assert f"{server.url}/{FOUR}" in str(caught.value) and "\n" not in str(caught.value)


def test_a_temporary_refusal_is_retried(server, tmp_path):
    server.status[FOUR] = [503, 500]
    get(server, tmp_path)
    assert downloaded(tmp_path) == expected("four")


def test_the_error_names_an_unreachable_server(server, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        server.url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        with pytest.raises(Hand1000Error, match=r"cannot be reached \(.*refused\); check the network"):
            get(server, tmp_path)


@pytest.mark.parametrize("size", ["512", "full"])
def test_a_disk_that_is_too_small_is_named_at_the_start(server, tmp_path, monkeypatch, size):
    """How much is free is replaced, since no test can fill a disk."""
    usage = namedtuple("usage", "total used free")
    enough = sum(map(len, ANNOTATED.values()))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 0, enough))
    what = "v2-full four" if size == "full" else "v2-512"  # The whole archive, or its members.
    with pytest.raises(Hand1000Error, match=rf"{tmp_path}: {what} needs 0.0 GB and 0.0 GB are free; free some"):
        get(server, tmp_path, size=size)
    assert not (tmp_path / "four").exists() and not list(tmp_path.glob(".download/*.part"))


def test_a_folder_has_one_version_and_size(server, tmp_path):
    get(server, tmp_path, size="512")
    with pytest.raises(Hand1000Error, match="has version 2, size 512, not version 2, size full; choose another"):
        get(server, tmp_path)
    with pytest.raises(Hand1000Error, match="HTTP 404"):
        get(server, tmp_path / "other", version=1, size="512")
    get(server, tmp_path / "other", size="512")


def test_every_gesture_has_an_address():
    for version, gestures in ((1, HAGRID_V1), (2, tuple(PHRASES))):
        for size in fetch.SIZES:
            archives = list(fetch._archives(gestures, version, size, None))
            assert len(archives) == 1 + (len(gestures) if size == "full" else 1)
            assert all(one.url.startswith("https://") and "{" not in one.url for one in archives)
    full = {one.gestures[0]: one.url for one in fetch._archives(tuple(PHRASES), 2, "full", None) if not one.shared}
    assert full["rock"].endswith("/hagrid_v2/hagrid_v2_zip/rock.zip")
    assert full["four"].endswith("/hagrid/hagrid_dataset_new_554800/hagrid_dataset/four.zip")


# The command


def test_the_command_fetches_and_shows_megabytes(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HAND1000_HAGRID_URL", f"{server.url}/")
    server.files[FOUR] = zipped({f"four/{index}.jpg": random.Random(index).randbytes(500_000) for index in range(4)})
    arguments = ["data", "get", "--gesture", "four", "--gesture", "grip", "--out", str(tmp_path), "--size", "full"]
    assert cli.main(arguments) == 0
    shown = capsys.readouterr()
    assert shown.out == f"{tmp_path}\n"
    lines = [line.partition(",")[0] for line in shown.err.splitlines()]
    assert "v2-full four: 2.00M/2.00M" in lines and "unpacked v2-full four: 2.00M/2.00M" in lines
    assert cli.main(arguments) == 0
    assert capsys.readouterr().err == ""


def test_a_long_download_prints_few_lines(capsys):
    on_progress = ProgressBar("four", unit="B")
    for done in range(0, 40_000_000_001, 50_000_000):
        on_progress(done, 40_000_000_000)
    lines = [line.partition(",")[0] for line in capsys.readouterr().err.splitlines()]
    assert lines == ["four: 0.00/40.0G", "four: 40.0G/40.0G"]


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--gesture", "wave"], "unknown gesture 'wave'"),
        (["--gesture", "grip", "--version", "1"], "grip: not in version 1 of HaGRID"),
        (["--gesture", "four", "--base-url", "mirror/path"], "'mirror/path': not a mirror's address"),
    ],
)
def test_a_fault_of_the_command_is_one_line(tmp_path, capsys, options, fault):
    out = tmp_path / "out"
    assert cli.main(["data", "get", "--out", str(out), *options]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("hand1000: error: ") and fault in shown.err and shown.err.count("\n") == 1
    assert not out.exists()


def test_the_error_names_a_file_in_place_of_the_folder(tmp_path, capsys):
    (tmp_path / "out").write_text("x")
    assert cli.main(["data", "get", "--out", str(tmp_path / "out"), "--gesture", "four"]) == 2
    assert "out: not a folder; choose another" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["out"]
