"""The GPU benchmark at the size of a test: all sides compute the same losses, and each row has its figures."""

import json

from benchmarks.gpu import LOSS_TOLERANCE, Benchmark, run_parts


def test_sides_compute_equal_losses(tmp_path, capsys):
    parts = ["full-4", "lora-4", "fusion-4", "embeddings-4"]

    run_parts(Benchmark(tmp_path, 600, rounds=1, steps=1), parts, tiny=True)

    rows = json.loads((tmp_path / "gpu.json").read_text())
    assert {row["stage"] for row in rows} == {"III, all weights", "III, LoRA", "II, fusion", "II, embeddings"}
    output = capsys.readouterr()
    assert output.err == ""
    assert len(output.out.splitlines()) == 2 + len(rows)
    for stage in {row["stage"] for row in rows}:
        losses = [row["first_loss"] for row in rows if row["stage"] == stage and row["first_loss"]]
        assert len(losses) >= 2
        assert max(losses) - min(losses) < LOSS_TOLERANCE * max(losses)
    assert all(row["images_per_second"] > 0 and row["mfu"] > 0 for row in rows)
