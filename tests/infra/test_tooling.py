"""The tooling: CI runs what `make` runs, every tool is pinned, and the prose check sees a banned word."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.support.infra_tools import BIN, run
from tests.support.short_demo import ROOT

MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))


def test_ci_runs_the_targets_of_make() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    (job,) = workflow["jobs"].values()
    assert job["steps"][-1]["run"] == "make ${{ matrix.target }}"
    targets = set(job["strategy"]["matrix"]["target"])
    assert {"check", "docs", "test"} <= targets <= TARGETS
    assert set(re.findall(r"^make (\w+)$", (ROOT / ".ci/run").read_text(), re.MULTILINE)) == {"check", "test"}


def test_help_lists_every_target() -> None:
    listed = run(Path("/usr/bin/make"), "--directory", ROOT)
    assert set(re.findall(r"^  make ([a-z-]+)  ", listed, re.MULTILINE)) == TARGETS


def test_every_development_package_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = project["dependencies"] + project["optional-dependencies"]["dev"]
    packages = {re.match(r"[\w-]+", name)[0].lower() for name in names} - {"hand1000"}
    pinned = re.findall(r"^([\w-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert packages <= set(pinned)


def test_the_version_in_the_citation_is_the_packages() -> None:
    from hand1000 import __version__

    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == __version__


@pytest.mark.parametrize("text", ["The user is told.", "def draw_picture(): ...", "OLD_PICTURES = 1"])
def test_codespell_sees_a_banned_word(tmp_path: Path, text: str) -> None:
    (tmp_path / "text.md").write_text(text)
    command = [BIN / "codespell", "-D", "-", "-D", ROOT / "tooling/banned-words.txt", tmp_path / "text.md"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True).returncode == 65


@pytest.mark.parametrize("text", ["One row a gesture", "learned by heart", "The file lies beside it."])
def test_grep_sees_a_banned_phrase(tmp_path: Path, text: str) -> None:
    (tmp_path / "text.md").write_text(text)
    command = ["git", "grep", "--no-index", "-niP", "-f", ROOT / "tooling/banned-phrases.txt", "--", "text.md"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == 0
