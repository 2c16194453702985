"""A data set on the Hugging Face hub, as far as it can be tried without the hub."""

import re
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.utils import filter_repo_objects

from hand1000.cli import main as cli
from hand1000.core.errors import Hand1000Error
from hand1000.data.hub import push_data_set
from hand1000.data.imageset import ImageRecord, write_metadata

TOKEN = "hf_secret"
COMMIT = "https://huggingface.co/datasets/me/four/commit/abc"


@pytest.fixture
def published(tmp_path) -> Path:
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "a.png").touch()
        record = ImageRecord(
            file_name="a.png", text="x", caption="x", captioner="x", gesture="four", user_id=split, source="0" * 64
        )
        write_metadata(tmp_path / split, [record])
    (tmp_path / "README.md").write_text("# card")
    return tmp_path


class RecordingApi:
    """Stands for HfApi, the one class that speaks with the hub, which cannot be had here."""

    public = False
    calls: list[tuple]

    def __init__(self, **settings):
        self.calls.append(("api", settings))

    def create_repo(self, *names, **settings):
        self.calls.append(("create_repo", names, settings))

    def repo_info(self, *names, **settings):
        self.calls.append(("repo_info", names, settings))
        return SimpleNamespace(private=not self.public)

    def upload_folder(self, **settings):
        self.calls.append(("upload_folder", settings))
        return SimpleNamespace(commit_url=COMMIT)


@pytest.fixture
def calls(monkeypatch) -> list[tuple]:
    monkeypatch.setattr(RecordingApi, "calls", [], raising=False)
    monkeypatch.setattr(huggingface_hub, "HfApi", RecordingApi)
    return RecordingApi.calls


def test_a_data_set_is_pushed_in_one_commit(published, calls, capsys):
    """Only HfApi is replaced: what is asked of it is held against what the hub's documentation says."""
    assert cli.main(["data", "push", str(published), "--repo", "me/four"]) == 0
    assert capsys.readouterr().out == f"{COMMIT}\n"
    api, create, upload = calls
    assert api == ("api", {"token": True})
    assert create == ("create_repo", ("me/four",), {"repo_type": "dataset", "private": None, "exist_ok": True})
    patterns = upload[1].pop("allow_patterns")
    assert upload == (
        "upload_folder",
        {
            "repo_id": "me/four",
            "repo_type": "dataset",
            "folder_path": published,
            "delete_patterns": patterns,
            "commit_message": "1 images to train on, 1 to measure against",
        },
    )
    for name in ("preparation.json", "quality.json", "captions.html", ".DS_Store", "notes.txt"):
        (published / name).touch()
    names = [str(path.relative_to(published)) for path in published.rglob("*") if path.is_file()]
    pushed = set(filter_repo_objects(names, allow_patterns=patterns))
    images = {f"{split}/{name}" for split in ("train", "test") for name in ("a.png", "metadata.jsonl")}
    assert pushed == images | {"README.md", "preparation.json", "quality.json", "captions.html"}


@pytest.mark.parametrize("public", [False, True])
def test_a_private_data_set_is_never_pushed_to_a_public_repository(published, calls, monkeypatch, public):
    """Only HfApi is replaced, see above; it leaves an existing repository public, as the hub does."""
    monkeypatch.setattr(RecordingApi, "public", public)
    if public:
        with pytest.raises(Hand1000Error, match="me/four: exists and is public; make it private"):
            push_data_set(published, "me/four", private=True)
    else:
        assert push_data_set(published, "me/four", private=True) == COMMIT
    assert [call[0] for call in calls] == ["api", "create_repo", "repo_info"] + ["upload_folder"] * (not public)
    assert calls[1][2]["private"] is True and calls[2] == ("repo_info", ("me/four",), {"repo_type": "dataset"})


@pytest.mark.parametrize(
    ("broken", "fault"),
    [
        (lambda root: (root / "README.md").unlink(), "README.md: no such file; push a data set that build_dataset"),
        (lambda root: (root / "test" / "metadata.jsonl").unlink(), "test/metadata.jsonl: no such file"),
        (lambda root: (root / "train" / "a.png").unlink(), "train/metadata.jsonl: line 1: no such image"),
        (lambda root: (root / "train" / "metadata.jsonl").write_text("\n"), "train: holds no images"),
    ],
)
def test_what_is_no_published_data_set_is_not_pushed(published, calls, capsys, broken, fault):
    """Only HfApi is replaced, see above."""
    broken(published)
    assert cli.main(["data", "push", str(published), "--repo", "me/four"]) == 2
    shown = capsys.readouterr()
    assert calls == [] and fault in shown.err and shown.err.count("\n") == 1


# The hub's own client, against a server of this machine that refuses.


def assert_told(published: Path, repo: str, reason: str) -> None:
    with pytest.raises(Hand1000Error, match=reason) as caught:
        push_data_set(published, repo, private=False)
    assert "\n" not in str(caught.value) and TOKEN not in str(caught.value) and repo in str(caught.value)


def test_a_missing_token_is_told(published, tmp_path, monkeypatch):
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    assert_told(published, "me/four", "no token for the hub; set HF_TOKEN or sign in with `hf auth login`")


def test_a_name_that_is_none_is_told(published, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert_told(published, "me/four/five", "not a repository's name; write it as OWNER/NAME")


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (401, "HTTP 401: the hub refuses the token; correct HF_TOKEN"),
        (403, re.escape("HTTP 403: the token may not write there; give one that has the right to write, or another")),
        (404, "HTTP 404: no such owner"),
        (400, r"HTTP 400: the hub refuses; try again later \(not today\)"),
    ],
)
def test_a_refusal_of_the_hub_is_told(published, monkeypatch, status, reason):
    class Refuses(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"] or 0))
            asked.append((self.command, self.path, self.headers["Authorization"]))
            body = b'{"error": "not today"}'
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST

        def log_message(self, *_):
            pass

    asked: list[tuple[str, str, str | None]] = []
    server = HTTPServer(("127.0.0.1", 0), Refuses)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    try:
        assert_told(published, "me/four", reason)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert ("POST", "/api/repos/create", f"Bearer {TOKEN}") in asked


def test_no_network_is_told(published, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    assert_told(published, "me/four", r"the hub cannot be reached \(.*refused.*\); check the network and HF_ENDPOINT")
