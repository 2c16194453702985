"""The comparison of the base model with the fine-tuned model."""

from dataclasses import replace

import pytest

from hand1000.core.errors import Hand1000Error
from hand1000.evaluation.base_vs_tuned import (
    compare_metrics,
    comparison_text,
    gesture_rates_table,
    metrics_table,
)
from tests.support.evaluation import compute


def test_several_gestures_have_a_table_of_their_own(real, fake) -> None:
    base, tuned = (
        compute(real, replace(fake, gestures=("call", "palm", "call", "palm")), None),
        compute(real, fake, None),
    )
    call, palm = gesture_rates_table(base, tuned).rows
    assert call == ("call", "0.5", "1", "1", "1", "1", "1", 2)
    assert palm == ("palm", "0", "0.5", "1", "0.5", "0.5", "1", 2)
    assert not gesture_rates_table(compute(real, fake), compute(real, fake)).rows
    plain = comparison_text(base, tuned).splitlines()
    assert plain[-3].split()[0] == "gesture" and plain[-2].split() == ["call", "0.5", "1", "1", "1", "1", "1", "2"]
    assert "| palm | 0 | 0.5 | 1 | 0.5 | 0.5 | 1 | 2 |" in gesture_rates_table(base, tuned).markdown()


def test_both_models_are_compared_in_one_table(real, fake) -> None:
    base, tuned = compute(real, fake), compute(real, real)
    rows = {row.name: row for row in compare_metrics(base, tuned)}
    assert rows["FID"].better == rows["KID-H"].better == "lower"
    assert rows["HAND-CONF"].better == rows["gesture accuracy"].better == "higher"
    assert (rows["FID"].base, rows["FID"].tuned) == (base.fid, tuned.fid)
    assert (rows["FID-H"].n_base, rows["FID-H"].n_tuned) == (3, 5)
    plain = comparison_text(base, tuned)
    head, first, *_, accuracy, diversity = plain.splitlines()
    assert first.split()[:4] == ["FID", "↓", f"{base.fid:.4g}", f"{tuned.fid:.4g}"]
    assert accuracy.split()[:5] == ["gesture", "accuracy", "↑", "0.5", "0.2"]
    # Numbers are aligned to the right.
    assert head.index("tuned") + 5 == accuracy.index("0.2") + 3
    # Beside the accuracy: without training images nobody can tell what is memorized.
    assert "memorization rate" not in rows and diversity.startswith("intra-prompt distance ↑")
    trained = base.model_copy(update={"memorization_rate": 0.25})
    (row,) = (row for row in compare_metrics(base, trained) if row.name == "memorization rate")
    assert (row.base, row.tuned, row.better) == (None, 0.25, "lower")
    markdown = metrics_table(compare_metrics(base.model_copy(update={"fid_h": None}), tuned)).markdown()
    assert markdown.splitlines()[1] == "| --- | ---: | ---: | ---: | --- |"
    assert f"| FID-H ↓ | – | {tuned.fid_h:.4g} | 3 / 5 |" in markdown
    with pytest.raises(Hand1000Error, match="n_real"):
        comparison_text(base, tuned.model_copy(update={"n_real": 6}))
