"""The upload of a dataset, against a recorded client and against a local server that refuses."""

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
from hand1000.data.hub import push_dataset
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
    """Record the calls of HfApi, the one class that connects to the hub."""

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


def test_a_data_set_is_uploaded_in_one_commit(published, calls, capsys):
    """Only HfApi is replaced; its expected arguments follow the hub's documentation."""
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
            "commit_message": "1 training images, 1 test images",
        },
    )
    for name in ("preparation.json", "quality.json", "captions.html", ".DS_Store", "notes.txt"):
        (published / name).touch()
    names = [str(path.relative_to(published)) for path in published.rglob("*") if path.is_file()]
    pushed = set(filter_repo_objects(names, allow_patterns=patterns))
    images = {f"{split}/{name}" for split in ("train", "test") for name in ("a.png", "metadata.jsonl")}
    assert pushed == images | {"README.md", "preparation.json", "quality.json", "captions.html"}


@pytest.mark.parametrize("public", [False, True])
def test_a_private_data_set_never_goes_to_a_public_repository(published, calls, monkeypatch, public):
    """The recorded client leaves an existing repository public, as the hub does."""
    monkeypatch.setattr(RecordingApi, "public", public)
    if public:
        with pytest.raises(Hand1000Error, match="me/four: exists and is public; make it private"):
            push_dataset(published, "me/four", private=True)
    else:
        assert push_dataset(published, "me/four", private=True) == COMMIT
    assert [call[0] for call in calls] == ["api", "create_repo", "repo_info"] + ["upload_folder"] * (not public)
    assert calls[1][2]["private"] is True and calls[2] == ("repo_info", ("me/four",), {"repo_type": "dataset"})


@pytest.mark.parametrize(
    ("broken", "fault"),
    [
        (lambda root: (root / "README.md").unlink(), "README.md: no such file; push a dataset that build_dataset"),
        (lambda root: (root / "test" / "metadata.jsonl").unlink(), "test/metadata.jsonl: no such file"),
        (lambda root: (root / "train" / "a.png").unlink(), "train/metadata.jsonl: line 1: no such image"),
        (lambda root: (root / "train" / "metadata.jsonl").write_text("\n"), "train: has no images"),
    ],
)
def test_an_incomplete_data_set_is_not_uploaded(published, calls, capsys, broken, fault):
    broken(published)
    assert cli.main(["data", "push", str(published), "--repo", "me/four"]) == 2
    output = capsys.readouterr()
    assert calls == [] and fault in output.err and output.err.count("\n") == 1


# The hub's own client, against a local server that refuses.


def assert_error_names(published: Path, repo: str, reason: str) -> None:
    with pytest.raises(Hand1000Error, match=reason) as caught:
        push_dataset(published, repo, private=False)
    assert "\n" not in str(caught.value) and TOKEN not in str(caught.value) and repo in str(caught.value)


def test_the_error_names_a_missing_token(published, tmp_path, monkeypatch):
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    assert_error_names(published, "me/four", "no token for the hub; set HF_TOKEN or sign in with `hf auth login`")


def test_the_error_names_an_invalid_repository_name(published, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert_error_names(published, "me/four/five", "not a repository's name; write it as OWNER/NAME")


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (401, "HTTP 401: the hub refuses the token; correct HF_TOKEN"),
        (403, re.escape("HTTP 403: the token has no right to write there; use one that has, or another")),
        (404, "HTTP 404: no such owner"),
        (400, r"HTTP 400: the hub refuses; try again later \(not today\)"),
    ],
)
def test_the_error_explains_a_refusal_of_the_hub(published, monkeypatch, status, reason):
    class RefusingHandler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"] or 0))
            requests.append((self.command, self.path, self.headers["Authorization"]))
            body = b'{"error": "not today"}'
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST  # noqa: N815 (the name that http.server calls)

        def log_message(self, *_):
            pass

    requests: list[tuple[str, str, str | None]] = []
    server = HTTPServer(("127.0.0.1", 0), RefusingHandler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    try:
        assert_error_names(published, "me/four", reason)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert ("POST", "/api/repos/create", f"Bearer {TOKEN}") in requests


def test_the_error_names_an_unreachable_hub(published, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    reason = r"the hub cannot be reached \(.*refused.*\); check the network and HF_ENDPOINT"
    assert_error_names(published, "me/four", reason)
