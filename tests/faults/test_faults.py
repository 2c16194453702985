"""A short form of the fault suite, and its own tools: each fault on one stage, a few times."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.checks import Findings, compare_files, list_files
from tests.faults.interposer import environment
from tests.faults.results import Results
from tests.support.short_demo import ROOT

ROWS = {
    "SIGKILL/train_unet": 3,
    "SIGTERM/train_fusion": 1,
    "disk full/optimize_embeddings": 1,
    "two processes/compute_gesture_feature": 1,
    "damaged result/find_hands": 1,
    "clock jump/caption_images": 1,
}


@pytest.mark.timeout(280)
def test_every_fault_on_one_stage_leaves_the_undisturbed_result(tmp_path: Path) -> None:
    rows = [option for name, trials in ROWS.items() for option in ("--row", f"{name}={trials}")]
    command = [sys.executable, "-m", "tests.faults", "--folder", str(tmp_path), "--no-page", "--jobs", "2", *rows]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    measured = {f"{row.fault}/{row.stage}": row.trials for row in Results(tmp_path).load().values()}
    assert measured == ROWS
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize(
    ("arming", "status", "content"),
    [
        ("kill_at(3, 9)", -signal.SIGKILL, b"ab"),
        ("kill_at(3, 9, torn=True)", -signal.SIGKILL, b"abc"),
        ("full_disk_at(3)", 1, b"ab"),
        ("kill_at(9, 9)", 0, b"abcd"),
    ],
)
def test_a_fault_strikes_at_its_operation(tmp_path: Path, arming: str, status: int, content: bytes) -> None:
    """Operation 1 creates the file, 2 and 3 write to it."""
    code = (
        "import os, sys; from pathlib import Path; from tests.faults.interposer import *\n"
        f"arm([Path(sys.argv[1])], {arming})\n"
        "file = os.open(sys.argv[1] + '/file', os.O_CREAT | os.O_WRONLY)\n"
        "os.write(file, b'ab'); os.write(file, b'cd')\n"
        "assert disarm() == 3\n"
    )
    folder = tmp_path / "watched"
    folder.mkdir()
    variables = environment(tmp_path / "build") | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code, str(folder)], env=variables, cwd=ROOT, capture_output=True)
    assert done.returncode == status, done.stderr
    assert (folder / "file").read_bytes() == content


def test_what_a_run_leaves_or_changes_is_found(tmp_path: Path) -> None:
    for name in ("expected", "actual"):
        (tmp_path / name / "artifacts/x").mkdir(parents=True)
        (tmp_path / name / "artifacts/x/file").write_text(name)
    (tmp_path / "actual/scratch/dead").mkdir(parents=True)
    (tmp_path / "expected/gone").touch()
    findings = Findings()
    compare_files(list_files(tmp_path / "actual"), list_files(tmp_path / "expected"), findings)
    assert findings.bits == ["missing: gone", "differs: artifacts/x/file"]
    assert findings.left == ["left: scratch/dead/"]


def test_run_ids_do_not_matter_but_second_runs_do(tmp_path: Path) -> None:
    runs = {"expected": ["a" * 32], "other id": ["b" * 32], "twice": ["a" * 32, "b" * 32]}
    for root, ids in runs.items():
        for run in ids:
            (tmp_path / root / "mlartifacts/hand1000" / run).mkdir(parents=True)
            (tmp_path / root / "mlartifacts/hand1000" / run / "report.html").touch()
    expected = list_files(tmp_path / "expected")
    assert list_files(tmp_path / "other id") == expected
    findings = Findings()
    compare_files(list_files(tmp_path / "twice"), expected, findings)
    assert findings.left == ["left: mlartifacts/hand1000/<run>/report.html (again)"]
