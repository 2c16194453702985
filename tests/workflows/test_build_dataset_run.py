"""A dataset built through `pyflyte run` with a real chat server, by a run that is killed and resumed."""

import json
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from hand1000.data.imageset import read_image_set
from tests.support.chat_server import ChatServer, chat_server, save_chat_model
from tests.support.short_demo import PYFLYTE, ROOT, command
from tests.support.tiny_captioners import CAPTIONERS

FOUR = "making four fingers up hand gesture"
IMAGES = {"train": 6, "test": 3}
KEY = "a-key-that-nobody-may-read"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChatServer]:
    with chat_server(save_chat_model(tmp_path_factory.mktemp("chat"))) as server:
        yield server


@pytest.fixture(scope="module")
def inputs_file(server: ChatServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped configuration with few images, all captioners, and the server for the completion."""
    folder = tmp_path_factory.mktemp("inputs")
    inputs = yaml.safe_load((ROOT / "workflows/configs/dataset.yaml").read_text())
    settings = inputs["settings"]
    inputs["images"], settings["data"]["test_images"] = IMAGES["train"], IMAGES["test"]
    (own,) = settings["captioners"]
    models = [
        own | {"kind": kind, "source": str(save(folder / kind)), "batch_size": 2} for kind, save in CAPTIONERS.items()
    ]
    settings["captioners"] = [*models, own]
    settings["completion"].update(writer="endpoint", url=server.url, model=server.model, attempts=2)
    path = folder / "inputs.yaml"
    path.write_text(yaml.safe_dump(inputs))
    return path


def start(inputs_file: Path, root: Path, shards: int) -> subprocess.Popen[str]:
    command = [
        str(PYFLYTE),
        "run",
        "workflows/build_dataset.py",
        "build_dataset",
        "--inputs-file",
        str(inputs_file),
        "--root",
        str(root),
        "--shards",
        str(shards),
    ]
    environment = {**os.environ, "HAND1000_ENDPOINT_KEY": KEY, "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def build(inputs_file: Path, root: Path, shards: int) -> tuple[Path, str]:
    """Run to the end; return the published dataset and the output of the run."""
    with start(inputs_file, root, shards) as process:
        output, _ = process.communicate(timeout=280)
    assert process.returncode == 0, output[-3000:]
    (published,) = (path for path in (root / "artifacts/publish").iterdir() if path.is_dir())
    return published, output


def captioned(root: Path) -> dict[str, list[set[str]]]:
    """Return, by captioning model, the images whose captions each of its jobs stored."""
    caches = (root / "caches/captions").iterdir()
    return {path.name: [set(json.loads(file.read_text())["value"]) for file in path.glob("*.json")] for path in caches}


@dataclass
class Resumed:
    """A run that was killed and started again.

    Attributes:
        root: Artifact root of both runs.
        before: Result of `captioned` at the kill.
        published: Folder of the dataset.
        output: Output of the second run.
        output_before: Output of the first run.
        requests: Requests of both runs to the server.
    """

    root: Path
    before: dict[str, list[set[str]]]
    published: Path
    output: str
    output_before: str
    requests: list[dict]


@pytest.fixture(scope="module")
def resumed(inputs_file: Path, server: ChatServer, tmp_path_factory: pytest.TempPathFactory) -> Resumed:
    """One shard, killed while the second captioner captions its first images, and started again."""
    root = tmp_path_factory.mktemp("resumed") / "root"
    lines = []
    with start(inputs_file, root, 1) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if line.startswith("caption_images paligemma shard 1 of 1: 2/6"):
                os.killpg(process.pid, signal.SIGKILL)
                break
        lines += process.stdout
    before = captioned(root)
    published, output = build(inputs_file, root, 1)
    return Resumed(root, before, published, output, "".join(lines), list(server.bodies))


def test_a_killed_run_resumes_and_captions_no_image_twice(resumed: Resumed) -> None:
    kept = sum(len(job) for jobs in resumed.before.values() for job in jobs)
    assert 9 + 2 <= kept < 3 * 9, resumed.output_before[-3000:]
    assert "caption_images blip2 shard 1 of 1: already there" in resumed.output
    after = captioned(resumed.root)
    assert len(after) == len(CAPTIONERS)
    # The batch in work at the kill is lost, so a caption that was computed again would be in two files.
    for captioner, jobs in after.items():
        assert sum(map(len, jobs)) == len(set().union(*jobs)) == 9
        assert all(job in jobs for job in resumed.before.get(captioner, []))
    for split, count in IMAGES.items():
        records = read_image_set(resumed.published / split)
        assert len({record.file_name for record in records}) == len({record.source for record in records}) == count
        assert len(records) == count and all(record.captioner.startswith("blip2 ") for record in records)


def test_the_server_gets_each_caption_twice_and_noise_is_refused(resumed: Resumed, server: ChatServer) -> None:
    attempts = Counter((body["messages"][1]["content"], body["temperature"]) for body in resumed.requests)
    captions = {content for content, _ in attempts}
    assert attempts == {(content, temperature): 1 for content in captions for temperature in (0, 0.3)}
    assert 9 < len(captions) <= 4 * 9
    assert {body["model"] for body in resumed.requests} == {server.model} and set(server.statuses) == {200}
    card = (resumed.published / "README.md").read_text()
    assert "- by rule: 9\n" in card and "at an endpoint" not in card
    refused = [line.rsplit(": ", 1) for line in card.splitlines() if line.startswith("- refused: ")]
    assert sum(int(count) for _, count in refused) == 2 * 9
    assert all(record.text.endswith(f", {FOUR}") for record in read_image_set(resumed.published / "train"))


def test_the_endpoints_key_is_sent_and_neither_said_nor_kept(resumed: Resumed, server: ChatServer) -> None:
    assert server.keys == {f"Bearer {KEY}"}
    assert KEY not in resumed.output_before and KEY not in resumed.output
    files = [path for path in resumed.root.rglob("*") if path.is_file()]
    assert len(files) > 50 and [path for path in files if KEY.encode() in path.read_bytes()] == []


def test_seven_shards_publish_the_same_bytes(resumed: Resumed, inputs_file: Path, tmp_path: Path) -> None:
    published, _ = build(inputs_file, tmp_path / "root", 7)
    assert published.name == resumed.published.name
    assert contents(published) == contents(resumed.published)


def test_the_published_set_trains_unchanged(resumed: Resumed, tmp_path: Path) -> None:
    call = command(
        tmp_path, "--data", str(resumed.published), "--images", str(IMAGES["train"]), test_images=IMAGES["test"]
    )
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "models:/hand1000-four-candidates/1" in done.stdout
    for split, count in IMAGES.items():
        (used,) = (tmp_path / "root/artifacts/caption_images").glob(f"*/{split}.jsonl")
        texts = sorted(json.loads(line)["text"] for line in used.read_text().splitlines())
        assert len(texts) == count
        assert texts == sorted(record.text for record in read_image_set(resumed.published / split))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
