"""The cost of a gesture from counted operations."""

import json
from pathlib import Path

import pytest

from benchmarks.cost import GPUS, Counts, count_operations, format_tables, read_utilization, stage_operations
from hand1000.config.settings import load_settings


@pytest.fixture(scope="module")
def counts() -> Counts:
    return count_operations()


def test_the_counts_are_those_of_stable_diffusion(counts: Counts) -> None:
    """The forward pass has 0.4 T multiplications at 512 px, as published; twice that a backward pass."""
    assert counts.forward == pytest.approx(0.8e12, rel=0.01)
    assert counts.train == pytest.approx(3 * counts.forward, rel=0.01)
    assert 2 * counts.forward < counts.backpropagate < 2.2 * counts.forward


def test_measured_utilization_is_that_of_the_stage_and_mode(tmp_path: Path) -> None:
    sd15 = {"backbone": "SD 1.5, 512 px"}
    rows = [
        sd15 | {"stage": "III, LoRA", "code": "hand1000", "mfu": 0.3},
        sd15 | {"stage": "III, LoRA", "code": "hand1000, compiled", "mfu": 0.4},
        sd15 | {"stage": "III, LoRA", "code": "diffusers' step", "mfu": 0.9},
        {"backbone": "SDXL", "stage": "III, LoRA", "code": "hand1000", "mfu": 0.8},
        sd15 | {"stage": "III, all weights", "code": "hand1000", "mfu": 0.5},
        sd15 | {"stage": "II, fusion", "code": "hand1000", "mfu": 0.2},
    ]
    path = tmp_path / "gpu.json"
    path.write_text(json.dumps(rows))
    assert read_utilization(path, "lora") == {"Stage III": 0.4, "Stage II, fusion": 0.2}
    text = format_tables(load_settings("fast"), 1000, {"": 0.35} | read_utilization(path, "lora"), GPUS)
    assert "| Stage III |" in text and "| 40% |" in text and "| 35% |" in text
    path.write_text("[]")
    with pytest.raises(ValueError, match="no stage of hand1000"):
        read_utilization(path, "lora")


def test_what_is_not_done_costs_nothing(counts: Counts) -> None:
    full, fast = (stage_operations(load_settings(preset), 1000, counts) for preset in ("default", "fast"))
    assert fast["Stage II, embeddings"] == 0 < full["Stage II, embeddings"]
    assert full["Stage III"] == pytest.approx(5000 * 4 * counts.train)
    assert fast["Stage III"] == pytest.approx(2000 * 4 * counts.backpropagate)
    assert sum(fast.values()) < sum(full.values()) / 2
