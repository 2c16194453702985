"""The tutorial runs all three stages in under 60 lines, here with few images and steps."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.support.short_demo import ROOT

SCRIPT = (ROOT / "docs/tutorial.py").read_text()


def test_the_tutorial_has_under_sixty_lines() -> None:
    assert len(SCRIPT.splitlines()) < 60


def test_the_page_includes_the_script() -> None:
    assert '--8<-- "docs/tutorial.py"' in (ROOT / "docs/tutorial.md").read_text().splitlines()


def test_the_tutorial_trains_and_draws_both_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").symlink_to(ROOT / "models")
    monkeypatch.chdir(tmp_path)
    short = SCRIPT.replace('"four", 100, 8, 300', '"four", 8, 2, 2')
    assert short != SCRIPT
    names: dict = {}
    exec(compile(short, "docs/tutorial.py", "exec"), names)
    assert [row["step"] for row in names["history"]] == [1, 2]
    before, after = (names[name].unet.state_dict() for name in ("before", "after"))
    assert any(not torch.equal(before[name], after[name]) for name in before)
    with Image.open("before-after.png") as grid:
        assert grid.width > 2 * 64 and grid.height > 2 * 64
