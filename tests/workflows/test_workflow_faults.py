"""The errors of `pyflyte run` for invalid inputs, which it reports before it computes anything."""

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

from tests.support.short_demo import PYFLYTE, ROOT, inputs_file, run


def test_invalid_input_ends_with_one_line(s3_server: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    faults = {
        ("--gesture", "foo"): "unknown gesture 'foo'",
        ("--gesture", "four,ok,four"): "gesture: four is repeated in 'four,ok,four'",
        ("--data", "no/such/folder"): "no/such/folder: no such folder",
        ("--data", str(tmp_path / "empty")): f"{tmp_path / 'empty'}: no images of 'four'; it is empty",
        ("--base_model", "no/such/folder"): "no/such/folder",
        ("--root", "s3://no-such-bucket-of-ours/x"): "no-such-bucket-of-ours",
    }
    with ThreadPoolExecutor(2) as pool:  # Each run takes seconds to start.
        runs = pool.map(lambda number: run(make_folder(tmp_path, number), *list(faults)[number]), range(len(faults)))
    for message, done in zip(faults.values(), runs, strict=True):
        lines = [line for line in done.stderr.splitlines() if line.startswith("hand1000: error:")]
        assert done.returncode == 2 and len(lines) == 1 and message in lines[0], done.stderr[-3000:]
        assert "Traceback" not in done.stderr


def make_folder(parent: Path, number: int) -> Path:
    folder = parent / str(number)
    folder.mkdir()
    return folder


def test_error_of_a_setting_out_of_range_names_the_field(tmp_path: Path) -> None:
    path = inputs_file(tmp_path)
    inputs = yaml.safe_load(path.read_text())
    inputs["settings"]["stage2"]["lambda_"] = 1.5
    path.write_text(yaml.safe_dump(inputs))
    call = [str(PYFLYTE), "run", "workflows/train_gesture.py", "train_gesture", "--inputs-file", str(path)]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=100)
    line = "hand1000: error: inputs: stage2.lambda_: Input should be less than or equal to 1 (got 1.5)\n"
    assert done.returncode == 2 and done.stderr == line, done.stderr
