"""The rows of `make bench`."""

import importlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.bench import format_row, main, row_from_json, run_module
from benchmarks.growth import Growth, find_faults
from benchmarks.operations import StepProfile, profile_step
from benchmarks.performance_page import write_page
from benchmarks.plan import MODULES, choose_seconds, estimate_parts, read_done, write_done
from benchmarks.published import find_script, load_parts
from benchmarks.rows import BenchOptions, Comparison, Row, measure_row
from tests.support.short_demo import ROOT


def test_the_ratio_is_that_of_the_medians() -> None:
    row = Row("work", "peer", (2.0, 1.0, 9.0), (8.0, 3.0, 4.0), goal=2.0, equal=True)
    assert row.ratio == 2 and row.met
    assert format_row(row) == "| work | peer | 2 s (1 to 9, 3) | 4 s (3 to 8, 3) | 2.00x | 2x | yes | yes |"


@pytest.mark.parametrize(
    ("values", "met"),
    [
        ({"goal": 2.1}, False),
        ({"goal": 2.0, "equal": False}, False),
        ({"limit": 1.9}, False),
        ({"limit": 2.0, "goal": 2.0}, True),
        ({}, None),
    ],
)
def test_a_goal_needs_equality_and_all_bounds(values: dict, met: bool | None) -> None:
    assert Row("work", "peer", (2.0,), (4.0,), **values).met is met


def test_a_row_survives_json() -> None:
    row = Row("work", "peer", (2.0,), (4.0,), goal=2.0, unit="GB", note="why")
    assert row_from_json(json.dumps(asdict(row))) == row


def test_sides_alternate_and_the_first_pair_is_not_counted() -> None:
    order: list[str] = []
    comparison = Comparison("work", "peer", lambda: order.append("product"), lambda: order.append("peer"))
    row = measure_row(comparison, BenchOptions(repeats=3))
    assert order == ["product", "peer", "peer", "product", "product", "peer", "peer", "product"]
    assert len(row.product) == len(row.peer_values) == 3


def test_a_result_that_differs_once_is_not_equal() -> None:
    results = iter([1, 2, 1, 1, 1, 1])
    comparison = Comparison(
        "work", "peer", lambda: next(results), lambda: 1, is_equal=lambda left, right: left == right
    )
    assert measure_row(comparison, BenchOptions(repeats=3)).equal is False


def test_a_row_of_little_time_has_one_pair() -> None:
    row = measure_row(Comparison("work", "peer", lambda: None, lambda: None), BenchOptions(seconds=0))
    assert len(row.product) == 1


@pytest.mark.parametrize("module", MODULES)
def test_both_sides_of_a_row_have_the_same_result(module: str) -> None:
    rows = list(importlib.import_module(f"benchmarks.{module}").measure_rows(BenchOptions(short=True)))
    assert [row.name for row in rows if row.equal is False] == []


def test_a_module_that_fails_keeps_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "benchmarks").mkdir()
    for name in ("bench", "plan", "rows"):
        shutil.copy(ROOT / f"benchmarks/{name}.py", tmp_path / "benchmarks")
    (tmp_path / "benchmarks/faulty.py").write_text(
        "from benchmarks.rows import Row\n"
        "def measure_rows(options):\n"
        "    print('something else')\n"
        "    yield Row('work', 'peer', (1.0,), (2.0,), note=str(options.peers))\n"
        "    raise SystemExit(3)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    rows = []
    with pytest.raises(RuntimeError, match="faulty: exit code 3"):
        for row in run_module("faulty", BenchOptions(peers=tmp_path), 60):
            rows.append(row)
    assert rows == [Row("work", "peer", (1.0,), (2.0,), note=str(tmp_path))]


def test_a_module_out_of_time_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "benchmarks").mkdir()
    for name in ("bench", "plan", "rows"):
        shutil.copy(ROOT / f"benchmarks/{name}.py", tmp_path / "benchmarks")
    (tmp_path / "benchmarks/slow.py").write_text(
        "import subprocess\ndef measure_rows(options):\n    subprocess.run(['sleep', '60'])\n    yield\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RuntimeError, match="slow: out of time"):
        list(run_module("slow", BenchOptions(), 1))


def test_a_row_that_fails_leaves_the_others() -> None:
    def fail() -> None:
        raise OSError("no | space")

    row = measure_row(Comparison("work", "peer", fail, lambda: None), BenchOptions())
    assert row.met is False and row == row_from_json(json.dumps(asdict(row)))
    assert format_row(row) == "| work | peer | **failed**: OSError: no / space | - | - | - | **no** | - |"


def test_a_call_goes_on_after_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(name: str, *_: object) -> list[Row]:
        calls.append(name)
        if name == "storage" and not broken.pop("storage", True):
            raise RuntimeError("storage: exit code 1")
        return [Row(name, "peer", (1.0,), (2.0,))]

    calls: list[str] = []
    broken = {"storage": False}
    state = tmp_path / "unfinished.json"
    monkeypatch.setattr("benchmarks.bench.run_module", run)
    monkeypatch.setattr("benchmarks.bench._measure_growth", lambda *_: [])
    monkeypatch.setattr("benchmarks.bench.read_done", lambda: read_done(state))
    monkeypatch.setattr("benchmarks.bench.write_done", lambda done: write_done(done, state))
    folders = ["--folder", str(tmp_path / "measured"), "--page", str(tmp_path / "page.md")]
    monkeypatch.setattr("sys.argv", ["bench", *folders])
    assert main() == 1 and calls == list(MODULES) and set(read_done(state)) == {*MODULES, "growth"} - {"storage"}
    output = capsys.readouterr()
    assert "plan, in minutes: demo" in output.err
    assert "| further rows of storage | - | **failed**: storage: exit code 1 |" in output.out
    calls.clear()
    assert main() == 0 and calls == ["storage"] and not state.exists()
    assert "| storage | peer | 1 s | 2 s | 2.00x |" in (tmp_path / "page.md").read_text()


def test_the_plan_fits_into_its_time() -> None:
    names = [*MODULES, "growth"]
    seconds = choose_seconds(names, 10_000, 60 * 40)
    assert sum(estimate_parts(names, 10_000, seconds).values()) < 60 * 40
    assert choose_seconds(["training"], 0, 60 * 40) == 40 and choose_seconds(names, 10_000, 60) == 8


def test_parts_of_a_published_script_run_without_the_rest(tmp_path: Path) -> None:
    script = tmp_path / "Hand1000/script.py"
    script.parent.mkdir()
    script.write_text(
        "import nothing_of_this_name\nfactor = np.float64(2)\ndef scale(x):\n    return factor * x\nscale(nothing)\n"
    )
    assert find_script(tmp_path, "script.py") == script and find_script(None, "script.py") is None
    assert find_script(tmp_path, "other.py") is None
    assert load_parts(script, ("factor", "scale"), {"np": np})["scale"](3) == 6
    with pytest.raises(KeyError, match="other"):
        load_parts(script, ("other",), {})


def test_the_profile_of_a_step_names_its_products() -> None:
    left, right = torch.rand(400, 400), torch.rand(400, 400)
    profile = profile_step(lambda: (left @ right).relu())
    assert profile.longest.startswith("mm ") and 0.5 < profile.products < 1
    assert "would be 2.00x" in StepProfile("mm 50%", 0.75).describe(1.5)


def growth_of(stage: str, seconds: float, peak: float) -> list[Growth]:
    return [Growth(stage, 100, 2.0, 1.0, 500.0), Growth(stage, 1000, 2.0, seconds, peak)]


def test_growth_that_is_not_linear_is_named() -> None:
    assert find_faults([*growth_of("find_hands", 11.0, 510.0), *growth_of("evaluate", 9.0, 540.0)]) == []
    assert find_faults(growth_of("evaluate", 20.0, 510.0)) == [
        "features and metrics: 20.0x the time for 10.0x the images"
    ]
    assert find_faults(growth_of("train_unet", 10.0, 900.0)) == ["Stage III: 400 MB more for 900 more images"]


def test_the_page_has_rows_growth_and_gpu(tmp_path: Path) -> None:
    folder, page = tmp_path / "measured", tmp_path / "performance.md"
    folder.mkdir()
    (folder / "distances.json").write_text(json.dumps({"rows": [], "machine": "a machine"}))
    (folder / "growth.json").write_text(json.dumps([asdict(row) for row in growth_of("find_hands", 11.0, 510.0)]))
    gpu = {"backbone": "SD 1.5", "stage": "III", "batch": 4, "code": "hand1000", "images_per_second": 50.0}
    gpu |= {"seconds": [0.08, 0.09], "mfu": 0.45, "peak_bytes": 8e9, "state_bytes": 5e9, "speedup": 1.5}
    (folder / "gpu.json").write_text(json.dumps([gpu]))
    rows = {"distances": [Row("work", "peer", (2.0,), (4.0,), goal=3.0, note="why it is slow")]}
    write_page(page, rows, folder)
    text = page.read_text()
    assert "Measured on a machine. 0 of 1 goals are met." in text and "- work, peer: why it is slow" in text
    assert "| find the hands | 10.0 ms, 500 MB | 11.0 ms, 510 MB |" in text
    assert "| SD 1.5 | III | 4 | hand1000 | 85 (80 to 90) | 50.0 | 45.0 % | 8.0 | 5.0 | 1.50x |" in text
    assert (tmp_path / "performance.png").stat().st_size > 10_000
