"""The artifact store, on a folder and on a real S3 server."""

import errno
import io
import json
import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from hand1000.core.errors import Hand1000Error
from hand1000.storage import json_stream as json_members
from hand1000.storage.artifacts import ArtifactStore, open_store
from hand1000.storage.backend import LocalBackend
from hand1000.storage.digests import Manifest, digest_bytes, digest_json, tree_manifest
from hand1000.storage.files import read_json, read_jsonl, replace_directory, write_bytes, write_json, write_jsonl
from hand1000.storage.s3 import S3Backend

KEY = "0" * 64


class SimulatedKill(BaseException):
    """Stands for the process ending at this point: nothing after it runs, no handler of the code catches it."""


@pytest.fixture(params=["folder", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return request.getfixturevalue("s3_root") if request.param == "s3" else str(tmp_path / "root")


@pytest.fixture
def store(root: str) -> ArtifactStore:
    return open_store(root)


def folder_with(path: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    return path


def files_of(path: Path) -> dict[str, str]:
    return {file.relative_to(path).as_posix(): file.read_text() for file in path.rglob("*") if file.is_file()}


FILES = {"model.json": "{}", "unet/weights.bin": "0123456789", "unet/empty": ""}


def raw_delete(store: ArtifactStore, address: str) -> None:
    """Delete one file or object behind the store's back."""
    if address.startswith("s3://"):
        url = urlsplit(address)
        store._backend.client.delete_object(Bucket=url.netloc, Key=url.path.lstrip("/"))
    else:
        os.remove(address)


def raw_overwrite(store: ArtifactStore, address: str, data: bytes) -> None:
    if address.startswith("s3://"):
        url = urlsplit(address)
        store._backend.client.put_object(Bucket=url.netloc, Key=url.path.lstrip("/"), Body=data)
    else:
        Path(address).write_bytes(data)


def fresh(store: ArtifactStore) -> ArtifactStore:
    """The store as another process sees it."""
    return ArtifactStore(type(store._backend)(store.root))


def dies_in(monkeypatch: pytest.MonkeyPatch, store: ArtifactStore, method: str, fatal_call: int = 1) -> None:
    """Let the process die at the start of the given call of a method of the store's place."""
    place, calls = type(store._backend), []
    original = getattr(place, method)

    def dying(self, *args):
        calls.append(args)
        if len(calls) == fatal_call:
            raise SimulatedKill
        return original(self, *args)

    monkeypatch.setattr(place, method, dying)


# Artifacts


def test_an_artifact_comes_back_as_it_was(store, tmp_path):
    address = store.publish("model", folder_with(tmp_path / "a", FILES))
    assert address.startswith(f"{store.root}/artifacts/model/")
    assert files_of(fresh(store).fetch(address)) == FILES
    assert store.is_complete(address)
    assert address.endswith(f"/{tree_manifest(store.fetch(address)).digest}")


def test_equal_content_has_one_address_on_every_root(root, tmp_path):
    other = open_store(str(tmp_path / "elsewhere"))
    one = open_store(root).publish("model", folder_with(tmp_path / "a", FILES))
    two = other.publish("model", folder_with(tmp_path / "b", dict(reversed(FILES.items()))))
    changed = other.publish("model", folder_with(tmp_path / "c", FILES | {"unet/empty": "x"}))
    assert Path(two).name == Path(one).name != Path(changed).name


def test_publishing_again_writes_nothing(store, tmp_path, monkeypatch):
    address = store.publish("model", folder_with(tmp_path / "a", FILES))
    dies_in(monkeypatch, store, "put_tree")
    assert store.publish("model", folder_with(tmp_path / "b", FILES)) == address


@pytest.mark.parametrize("method", ["put_tree", "write"])
def test_killed_before_the_manifest_the_artifact_is_not_there(store, tmp_path, monkeypatch, method):
    whole = folder_with(tmp_path / "whole", FILES)
    address = f"{store.root}/artifacts/model/{tree_manifest(whole).digest}"
    with monkeypatch.context() as patch:
        dies_in(patch, store, method)
        with pytest.raises(SimulatedKill):
            store.publish("model", whole)
    assert not store.is_complete(address)
    with pytest.raises(Hand1000Error, match="never finished"):
        store.fetch(address)
    assert store.publish("model", folder_with(tmp_path / "again", FILES)) == address
    assert files_of(store.fetch(address)) == FILES


def test_a_missing_file_makes_the_artifact_incomplete_and_publishing_repairs_it(store, tmp_path):
    address = store.publish("model", folder_with(tmp_path / "a", FILES))
    raw_delete(store, f"{address}/unet/weights.bin")
    assert not store.is_complete(address)
    with pytest.raises(Hand1000Error, match="unet/weights.bin: missing"):
        store.fetch(address)
    store.publish("model", folder_with(tmp_path / "b", FILES))
    assert files_of(fresh(store).fetch(address)) == FILES


def test_a_file_cut_short_is_named(store, tmp_path):
    address = store.publish("model", folder_with(tmp_path / "a", FILES))
    raw_overwrite(store, f"{address}/unet/weights.bin", b"01234")
    with pytest.raises(Hand1000Error, match="unet/weights.bin: 5 of 10 bytes"):
        store.fetch(address)


def test_a_flipped_byte_in_a_bucket_is_refused_and_named(s3_root, tmp_path):
    store = open_store(s3_root)
    address = store.publish("model", folder_with(tmp_path / "a", FILES))
    raw_overwrite(store, f"{address}/unet/weights.bin", b"0123456780")
    with pytest.raises(Hand1000Error, match="unet/weights.bin: its bytes are not those"):
        store.fetch(address)
    raw_delete(store, f"{address}/unet/weights.bin")  # The remedy of the message.
    store.publish("model", folder_with(tmp_path / "b", FILES))
    assert files_of(store.fetch(address)) == FILES


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "a/../../outside", "a\\b"])
def test_a_manifest_cannot_name_a_file_outside(store, name):
    digest = digest_bytes(b"x")
    listing = [{"name": name, "size": 1, "sha256": digest}]
    address = f"{store.root}/artifacts/model/{digest_json(listing)}"
    store._backend.write(f"artifacts/model/{digest_json(listing)}.json", json.dumps({"files": listing}).encode())
    with pytest.raises(Hand1000Error, match="not a plain relative path"):
        store.fetch(address)


def test_a_manifest_under_another_name_is_refused(store, tmp_path):
    manifest = tree_manifest(folder_with(tmp_path / "a", FILES))
    store._backend.write(f"artifacts/model/{KEY}.json", manifest.model_dump_json().encode())
    with pytest.raises(Hand1000Error, match="not the manifest of this artifact"):
        store.fetch(f"{store.root}/artifacts/model/{KEY}")


def test_a_bucket_is_downloaded_once_a_process(s3_root, tmp_path, monkeypatch):
    store = open_store(s3_root)
    address = store.publish("model", folder_with(tmp_path / "a", FILES))
    first = store.fetch(address)
    dies_in(monkeypatch, store, "get_tree")
    assert open_store(f"{s3_root}/").fetch(address) == first


def test_a_large_file_travels_in_parts(s3_root, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "large").write_bytes(os.urandom(1024) * (20 * 1024))
    store = open_store(s3_root)
    digest = tree_manifest(tmp_path / "a").files[0].sha256
    folder = store.fetch(store.publish("model", tmp_path / "a"))
    assert tree_manifest(folder).files[0].sha256 == digest


def test_a_link_is_refused(store, tmp_path):
    folder_with(tmp_path / "a", FILES)
    (tmp_path / "a" / "link").symlink_to("model.json")
    with pytest.raises(Hand1000Error, match="link: not a plain file"):
        store.publish("model", tmp_path / "a")


@pytest.mark.parametrize("kind", ["", "Model", "../model", "a/b", "a" * 41])
def test_a_kind_is_a_short_identifier(store, tmp_path, kind):
    with pytest.raises(Hand1000Error, match="not a valid kind"):
        store.publish(kind, folder_with(tmp_path / "a", FILES))


def test_an_address_of_another_root_is_refused(store):
    for address in (f"/elsewhere/artifacts/model/{KEY}", f"{store.root}/artifacts/model/../{KEY}"):
        with pytest.raises(Hand1000Error, match="not an artifact of"):
            store.fetch(address)


def _publish_copies(root: str, folder: Path, name: str, addresses: "multiprocessing.Queue") -> None:
    store = open_store(root)
    for attempt in range(5):
        content = {"round": str(attempt)} | {f"file{i}": str(i) for i in range(20)}
        addresses.put(store.publish("model", folder_with(folder / f"{name}{attempt}", content)))


def test_two_processes_may_publish_the_same_at_once(root, tmp_path):
    context = multiprocessing.get_context("spawn")
    addresses = context.Queue()
    processes = [
        context.Process(target=_publish_copies, args=(root, tmp_path / "given", name, addresses)) for name in "ab"
    ]
    for process in processes:
        process.start()
    found = [addresses.get(timeout=60) for _ in range(10)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(set(found)) == 5
    assert all(len(files_of(open_store(root).fetch(address))) == 21 for address in found)


def test_the_loser_of_a_race_leaves_the_winners_folder(tmp_path, monkeypatch):
    store = open_store(str(tmp_path / "root"))
    rename = os.rename

    def overtaken(source, target):
        if "artifacts" in str(target):
            monkeypatch.setattr(os, "rename", rename)
            folder_with(Path(target), FILES)
        rename(source, target)

    monkeypatch.setattr(os, "rename", overtaken)
    address = store.publish("model", folder_with(tmp_path / "a", FILES))
    assert files_of(store.fetch(address)) == FILES


# Results


def test_a_record_comes_back_with_its_address(store, tmp_path):
    address = store.publish("model", folder_with(tmp_path / "a", FILES))
    assert store.get_result("stage1", KEY) is None
    store.put_result("stage1", KEY, {"address": address, "seconds": 1.5})
    assert fresh(store).get_result("stage1", KEY) == {"address": address, "seconds": 1.5}


def test_a_dangling_record_counts_as_absent(store, tmp_path):
    address = store.publish("model", folder_with(tmp_path / "a", FILES))
    store.put_result("stage1", KEY, {"address": address})
    raw_delete(store, f"{address}/model.json")
    assert store.get_result("stage1", KEY) is None


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b'{"address": "artifacts/../x"}', b'{"address": 3}'])
def test_a_damaged_record_counts_as_absent(store, data, caplog):
    store._backend.write(f"results/stage1/{KEY}.json", data)
    assert store.get_result("stage1", KEY) is None
    assert KEY in caplog.text


def test_a_folder_may_be_moved_with_its_records(tmp_path):
    store = open_store(str(tmp_path / "before"))
    store.put_result("stage1", KEY, {"address": store.publish("model", folder_with(tmp_path / "a", FILES))})
    shutil.move(tmp_path / "before", tmp_path / "after")
    moved = open_store(str(tmp_path / "after"))
    assert files_of(moved.fetch(moved.get_result("stage1", KEY)["address"])) == FILES


# Checkpoints


def saved(store: ArtifactStore, tmp_path: Path, step: int) -> None:
    store.checkpoint("stage3", KEY).save(folder_with(tmp_path / f"state{step}", {"step": str(step), "same": "s"}))


def restored(store: ArtifactStore, into: Path) -> str | None:
    shutil.rmtree(into, ignore_errors=True)
    return (into / "step").read_text() if fresh(store).checkpoint("stage3", KEY).restore(into) else None


def test_a_checkpoint_is_the_last_state_saved(store, tmp_path):
    assert restored(store, tmp_path / "into") is None
    saved(store, tmp_path, 1)
    saved(store, tmp_path, 2)
    assert restored(store, tmp_path / "into") == "2"
    assert len(store._backend.file_sizes(f"checkpoints/stage3/{KEY}")) == 3, "the first state was not removed"
    store.checkpoint("stage3", KEY).clear()
    assert restored(store, tmp_path / "into") is None
    assert store._backend.file_sizes(f"checkpoints/stage3/{KEY}") == {}


def test_restoring_replaces_what_is_there_and_gives_files_that_may_be_changed(store, tmp_path):
    saved(store, tmp_path, 1)
    into = folder_with(tmp_path / "into", {"step": "old", "left": "over"})
    assert store.checkpoint("stage3", KEY).restore(into)
    assert files_of(into) == {"step": "1", "same": "s"}
    (into / "step").write_text("changed")
    assert restored(store, tmp_path / "other") == "1"


@pytest.mark.parametrize(("method", "survivor"), [("put_tree", "1"), ("write", "1"), ("remove", "2")])
def test_a_crash_while_saving_leaves_a_readable_state(store, tmp_path, monkeypatch, method, survivor):
    saved(store, tmp_path, 1)
    with monkeypatch.context() as patch:
        dies_in(patch, store, method)
        with pytest.raises(SimulatedKill):
            saved(store, tmp_path, 2)
    assert restored(store, tmp_path / "into") == survivor
    saved(store, tmp_path, 3)
    assert restored(store, tmp_path / "into") == "3"


def test_a_crash_amid_an_upload_leaves_the_last_state(s3_root, tmp_path):
    store = open_store(s3_root)
    saved(store, tmp_path, 1)
    half = tree_manifest(folder_with(tmp_path / "state2", {"step": "2", "same": "s"}))
    store._backend.write(f"checkpoints/stage3/{KEY}/{half.digest}/step", b"2")
    assert restored(store, tmp_path / "into") == "1"
    saved(store, tmp_path, 2)
    assert restored(store, tmp_path / "into") == "2"


def test_saving_the_same_state_twice_keeps_it(store, tmp_path):
    saved(store, tmp_path, 1)
    saved(store, tmp_path, 1)
    assert restored(store, tmp_path / "into") == "1"


@pytest.mark.parametrize("damage", ["flipped", "missing", "pointer"])
def test_a_damaged_checkpoint_is_reported_and_passed_over(store, tmp_path, damage, caplog):
    saved(store, tmp_path, 1)
    base = f"{store.root}/checkpoints/stage3/{KEY}"
    manifest = Manifest.model_validate_json(store._backend.read(f"checkpoints/stage3/{KEY}/current.json"))
    if damage == "flipped":
        raw_overwrite(store, f"{base}/{manifest.digest}/step", b"7")
    elif damage == "missing":
        raw_delete(store, f"{base}/{manifest.digest}/step")
    else:
        raw_overwrite(store, f"{base}/current.json", b"{}")
    with caplog.at_level(logging.WARNING):
        assert restored(store, tmp_path / "into") is None
    assert "damaged checkpoint" in caplog.text
    assert not (tmp_path / "into").exists()
    saved(store, tmp_path, 2)
    assert restored(store, tmp_path / "into") == "2"


# Refusals


def test_a_missing_bucket_is_named(s3_server, tmp_path):
    store = open_store("s3://hand1000-not-there/prefix")
    for attempt in (
        lambda: store.get_result("stage1", KEY),
        lambda: store.publish("model", folder_with(tmp_path / "a", FILES)),
        lambda: store.checkpoint("stage3", KEY).save(folder_with(tmp_path / "b", FILES)),
    ):
        with pytest.raises(Hand1000Error, match="s3://hand1000-not-there/prefix/.*no such bucket"):
            attempt()


@pytest.mark.parametrize(
    ("variable", "value", "remedy"),
    [
        ("AWS_ACCESS_KEY_ID", "nobody", "correct AWS_ACCESS_KEY_ID"),
        ("AWS_SECRET_ACCESS_KEY", "wrong", "correct AWS_SECRET_ACCESS_KEY"),
        ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9", "cannot be reached"),
        ("AWS_ENDPOINT_URL_S3", "127.0.0.1", "not a URL"),
    ],
)
def test_wrong_settings_are_told_in_one_line(s3_root, tmp_path, monkeypatch, variable, value, remedy):
    monkeypatch.setenv(variable, value)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    store = fresh(open_store(s3_root))
    for attempt in (
        lambda: store.get_result("stage1", KEY),
        lambda: store._backend.put_tree(folder_with(tmp_path / "a", FILES), "tree", tree_manifest(tmp_path / "a")),
        lambda: store._backend.file_sizes("tree"),
        lambda: store._backend.get_tree("tree", tree_manifest(folder_with(tmp_path / "a", FILES)), tmp_path / "into"),
    ):
        with pytest.raises(Hand1000Error, match=remedy) as caught:
            attempt()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        ("AccessDenied", "s3:PutObject"),
        ("403", "s3:PutObject"),
        ("ExpiredToken", "sign in again"),
        ("PermanentRedirect", "set AWS_REGION"),
        ("SlowDown", "refused with SlowDown; try again later"),
    ],
)
def test_other_refusals_name_their_remedy(code, remedy):
    # SeaweedFS never answers with these, so the answer is made here.
    from botocore.exceptions import ClientError

    from hand1000.storage.s3 import translate_s3_errors

    with pytest.raises(Hand1000Error, match=f"s3://b/k: .*{remedy}"), translate_s3_errors("s3://b/k"):
        raise ClientError({"Error": {"Code": code}}, "PutObject")


def test_flytes_variables_reach_the_server(s3_server, s3_root, tmp_path, monkeypatch):
    for flyte, aws in (
        ("FLYTE_AWS_ENDPOINT", "AWS_ENDPOINT_URL_S3"),
        ("FLYTE_AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY_ID"),
        ("FLYTE_AWS_SECRET_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY"),
    ):
        monkeypatch.setenv(flyte, os.environ[aws])
        monkeypatch.delenv(aws)
    monkeypatch.delenv("AWS_REGION")
    store = ArtifactStore(S3Backend(s3_root))
    assert store.is_complete(store.publish("model", folder_with(tmp_path / "a", FILES)))


@pytest.mark.parametrize("root", ["gs://bucket/x", "s3://", "s3:///x", "http://host/x"])
def test_a_root_that_is_no_place_is_refused(root):
    with pytest.raises(Hand1000Error, match="not an S3 URL"):
        open_store(root)


@pytest.fixture
def tiny_disk(tmp_path: Path):
    """A filesystem of one mebibyte."""
    path = tmp_path / "disk"
    path.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", path]).returncode:
        pytest.skip("only root may mount a small filesystem")
    yield path
    subprocess.run(["umount", "-l", path], check=True)


def test_a_full_disk_is_told_and_the_last_checkpoint_stays(tiny_disk, tmp_path):
    store = open_store(str(tiny_disk / "root"))
    saved(store, tmp_path, 1)
    large = folder_with(tmp_path / "large", {"step": "2", "weights": "x" * 2_000_000})
    with pytest.raises(Hand1000Error, match="no space left"):
        store.checkpoint("stage3", KEY).save(large)
    with pytest.raises(Hand1000Error, match="no space left"):
        store.publish("model", large)
    with pytest.raises(Hand1000Error, match="no space left"):
        write_bytes(tiny_disk / "file", b"x" * 2_000_000)
    assert not (tiny_disk / "file").exists()
    assert restored(store, tmp_path / "into") == "1"
    assert store.publish("model", folder_with(tmp_path / "small", FILES)), "the failed copy still fills the disk"


def test_a_full_disk_while_downloading_is_told(s3_root, tiny_disk, tmp_path, monkeypatch):
    store = open_store(s3_root)
    address = store.publish("model", folder_with(tmp_path / "a", {"weights": "x" * 2_000_000}))
    monkeypatch.setenv("HAND1000_NODE_CACHE", str(tiny_disk))
    with pytest.raises(Hand1000Error, match="no space left"):
        store.fetch(address)


# Scratch


def test_a_workspace_is_on_the_roots_filesystem_and_gone_afterwards(store):
    with pytest.raises(SimulatedKill), store.workspace() as path:
        (path / "file").write_text("x")
        if not store.root.startswith("s3://"):
            assert path.is_relative_to(store.root)
        raise SimulatedKill
    assert not path.exists()


CHILD = """
import sys, time
from hand1000.storage.artifacts import open_store
with open_store(sys.argv[1]).workspace() as path:
    (path / "file").write_text("x")
    print(path.parent, flush=True)
    time.sleep(float(sys.argv[2]))
"""


def test_nothing_of_a_process_stays_in_the_temporary_folder(s3_root, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    subprocess.run([sys.executable, "-c", CHILD, s3_root, "0"], check=True, stdout=subprocess.DEVNULL)
    assert list(tmp_path.iterdir()) == []


def test_the_scratch_of_a_killed_process_is_removed_and_that_of_a_living_one_kept(tmp_path):
    root = str(tmp_path / "root")
    children = [
        subprocess.Popen([sys.executable, "-c", CHILD, root, "60"], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    living, dead = (Path(child.stdout.readline().strip()) for child in children)
    assert living.is_dir() and dead.is_dir()
    children[1].send_signal(signal.SIGKILL)
    children[1].wait()
    with ArtifactStore(LocalBackend(root)).workspace():
        assert living.is_dir() and not dead.exists()
    children[0].kill()
    children[0].wait()


# Files


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "file.jsonl"
    write_jsonl(path, [{"a": 1}])

    def rows():
        yield {"a": 2}
        raise SimulatedKill

    with pytest.raises(SimulatedKill):
        write_jsonl(path, rows())
    assert [row for _, row in read_jsonl(path)] == [{"a": 1}]
    assert list(tmp_path.iterdir()) == [path]


def test_a_refusal_to_write_names_the_file(tmp_path, monkeypatch):
    # Root may write anywhere, so the refusal is made here.
    def refuse(*_):
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(Hand1000Error, match="x.json: not writable"):
        write_json(tmp_path / "x.json", {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("data", "message"), [(b"{\n,}", "line 2: not JSON"), (b"\xff", "not JSON"), (None, "no such file")]
)
def test_a_faulty_json_file_is_named(tmp_path, data, message):
    path = tmp_path / "x.json"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(Hand1000Error, match=f"{path}: .*{message}"):
        read_json(path)


def test_a_faulty_line_is_named(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"a": "b\u2028c"}\n\n3\n')
    with pytest.raises(Hand1000Error, match="x.jsonl: line 3: not a JSON object"):
        list(read_jsonl(tmp_path / "x.jsonl"))


def test_equal_json_has_one_digest():
    assert digest_json({"a": 1, "b": [1.5, None]}) == digest_json({"b": [1.5, None], "a": 1})
    assert digest_json(Manifest(files=())) == digest_json({"files": []}) != digest_json({"files": None})
    with pytest.raises(ValueError):
        digest_json(float("nan"))


def test_a_folder_takes_the_place_of_another(tmp_path):
    for name in ("new", "newer"):
        replace_directory(folder_with(tmp_path / name, {name: name}), tmp_path / "target")
        assert files_of(tmp_path) == {f"target/{name}": name}


def entries(count):
    """Members with all that may mislead whoever looks for a member's end."""
    return {f'{index} "}}, ': {"a": [index], "b": {"c": '}, "x": {'}, "d": {}, "e": "ä" * 40} for index in range(count)}


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("block", [200, 1000, 1 << 20])
def test_the_members_of_a_large_object_come_whole_and_in_order(monkeypatch, block, indent):
    monkeypatch.setattr(json_members, "BLOCK_BYTES", block)
    text = b"\xef\xbb\xbf \n" + json.dumps(entries(60), indent=indent, ensure_ascii=False).encode() + b"\n"
    read = [(name, json.loads(bytes(value))) for name, value in json_members.iter_members(io.BytesIO(text))]
    assert read == list(entries(60).items())


@pytest.mark.parametrize("block", [200, 1 << 20])
def test_the_members_before_a_fault_come_first(monkeypatch, block):
    monkeypatch.setattr(json_members, "BLOCK_BYTES", block)
    whole = json.dumps(entries(30))
    middle = whole.index('{"a": [17]')
    for text, count in ((whole[:middle], 17), (whole[:middle] + "]" + whole[middle + 1 :], 17), (whole[:-1], 29)):
        names = []
        with pytest.raises(json_members.MalformedJsonError, match="not JSON"):
            for name, _ in json_members.iter_members(io.BytesIO(text.encode())):
                names.append(name)
        assert names == list(entries(count))


@pytest.mark.parametrize(("text", "message"), [("", "empty"), ("[1]", "not a JSON object"), ("{", "not JSON")])
def test_what_is_no_object_is_told(text, message):
    with pytest.raises(json_members.MalformedJsonError, match=message):
        list(json_members.iter_members(io.BytesIO(text.encode())))


def test_a_member_without_end_is_not_read_to_the_end(monkeypatch):
    monkeypatch.setattr(json_members, "BLOCK_BYTES", 100)
    stream = io.BytesIO(b'{"a": "' + b"x" * 10_000)
    with pytest.raises(json_members.MalformedJsonError):
        list(json_members.iter_members(stream))
    assert stream.tell() <= 400


def test_an_object_without_members_has_none():
    assert list(json_members.iter_members(io.BytesIO(b"{}"))) == []
