"""The command `hand1000 gc` on a root with an embedded MLflow."""

import os
import time
from pathlib import Path

import pytest

from hand1000.cli.gc import format_size
from hand1000.cli.main import main
from hand1000.registry.connection import connect
from hand1000.registry.recorder import Recording, RunRecorder
from hand1000.registry.review import promote, reject
from hand1000.registry.tracking import RunTracker
from hand1000.registry.unsent import Outbox
from hand1000.storage.artifacts import open_store
from tests.support.retention import record_run


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A root with a champion and a rejected candidate, whose artifacts were last used 40 days ago."""
    folder = tmp_path_factory.mktemp("gc")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        store, tracking = open_store(str(folder / "root")), connect(folder / "root")
        promote(tracking, record_run(store, tracking, folder, "first").uri, who="ann")
        rejected = record_run(store, tracking, folder, "second")
        reject(tracking, rejected.uri, who="ann", why="worse")
    past = time.time() - 40 * 86_400
    for path in (folder / "root").rglob("*"):
        os.utime(path, (past, past))
    return folder / "root"


@pytest.fixture(autouse=True)
def no_server(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and "scratch" not in path.parts}


def gc(root: Path, *arguments: str) -> int:
    return main(["gc", "--root", str(root), *arguments])


def test_it_says_what_goes_and_why_the_rest_stays(root, capsys):
    before = files(root)
    assert gc(root, "--dry-run") == 0
    forecast = capsys.readouterr().out
    assert files(root) == before
    # The weights are younger than their 30 days, and so is the report by which a rerun would find them.
    assert "       1       24 B  train_unet\n" not in forecast
    for line in ("assemble_model", "encode_dataset", "train_unet", "prepare_data: champion of hand1000-four"):
        assert line in forecast
    assert "models:/hand1000-four-candidates/2: written or used recently" in forecast
    assert forecast.endswith("nothing removed (--dry-run)\n")

    assert gc(root) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(forecast.removesuffix("nothing removed (--dry-run)\n"))
    assert "\nremoved " in shown
    assert gc(root) == 0
    assert capsys.readouterr().out.startswith("remove        0 items        0 B\n")

    assert gc(root, "--keep-days", "0") == 0
    shown = capsys.readouterr().out
    assert "weights of candidates" in shown and "  models:/hand1000-four-candidates/2\n" in shown
    assert main(["review", "show", "four/2", "--registry", str(root)]) == 0
    page = capsys.readouterr().out
    assert "this version cannot be promoted; train it again" in page and "review promote" not in page
    left = files(root)
    assert not any("train_unet" in name for name in left if name.startswith("artifacts"))
    assert len([name for name in left if name.endswith("unet.bin")]) == 1


def test_unsent_records_are_listed_and_sent(root, capsys):
    assert main(["registry", "unsent", "--root", str(root)]) == 0
    assert capsys.readouterr().out == f"{root}/unsent: no records wait for MLflow\n"
    recording = Recording(Outbox(open_store(str(root)).backend), lambda: connect(root))
    recording.outage.prolong()
    RunRecorder(recording, "away").child_run("train").log_history([{"step": 1, "loss": 0.5}])
    RunRecorder(recording, "away").set_tags({"a": 1})
    assert main(["registry", "unsent", "--root", str(root)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:3]] == [["away", "train"], ["away", "the"]]
    assert main(["registry", "unsent", "--root", str(root), "--send"]) == 0
    assert capsys.readouterr().out.startswith("sent 2 records to MLflow at sqlite:")
    tracking = connect(root)
    run = RunTracker("hand1000", "away", tracking).child_run("train")
    assert tracking.client.get_run(run.run_id).data.metrics == {"loss": 0.5}


@pytest.mark.parametrize("days", ["-1", "nan", "4000", "x"])
def test_a_bad_age_is_refused(root, days, capsys):
    with pytest.raises(SystemExit):
        gc(root, "--keep-days", days)
    assert "--keep-days" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--root", "{}/nowhere"], "{}/nowhere: no such folder; name an artifact root with --root"),
        (["--root", "{}"], "no MLflow here; name the folder of mlflow.db or a server with --registry"),
        (["--root", "{}", "--registry", "http://127.0.0.1:9"], "http://127.0.0.1:9: no MLflow server answers"),
        (["--root", "s3://"], "not an S3 URL"),
    ],
)
def test_a_root_or_registry_that_is_none_is_one_line(tmp_path, capsys, arguments, message):
    assert main(["gc", *(argument.format(tmp_path) for argument in arguments)]) == 2
    assert message.format(tmp_path) in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_sizes_are_readable():
    assert [format_size(size) for size in (0, 999, 1000, 1_500_000, 2e15)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "1.5 MB",
        "2000.0 TB",
    ]
