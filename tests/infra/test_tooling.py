"""The tooling: CI runs what `make` runs, every tool is pinned, and the prose check sees a banned word."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.support.infra_tools import BIN, packages_of_lock, run
from tests.support.short_demo import ROOT

MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))


def test_ci_runs_the_targets_of_make() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    (job,) = workflow["jobs"].values()
    assert job["steps"][-1]["run"] == "make ${{ matrix.target }}"
    targets = set(job["strategy"]["matrix"]["target"])
    assert {"audit", "check", "docs", "infra-check", "test"} <= targets <= TARGETS
    pythons = {*job["strategy"]["matrix"]["python"], *(row["python"] for row in job["strategy"]["matrix"]["include"])}
    assert pythons == {"3.11", "3.12"} and {"target": "test", "python": "3.12"} in job["strategy"]["matrix"]["include"]
    assert set(re.findall(r"^make ([\w-]+)$", (ROOT / ".ci/run").read_text(), re.MULTILINE)) == targets - {"docs"}


def test_help_lists_every_target() -> None:
    listed = run(Path("/usr/bin/make"), "--directory", ROOT)
    assert set(re.findall(r"^  make ([a-z-]+)  ", listed, re.MULTILINE)) == TARGETS


def test_every_development_package_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = project["dependencies"] + project["optional-dependencies"]["dev"]
    packages = {re.match(r"[\w-]+", name)[0].lower() for name in names} - {"hand1000"}
    assert packages <= set(packages_of_lock(ROOT / "requirements.lock"))


LOCKS = ["requirements.lock", "infra/tools.lock", "tooling/audit.lock", "tooling/checkov.lock", "tooling/uv.lock"]


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_package_has_hashes(lock: str) -> None:
    packages = packages_of_lock(ROOT / lock)
    assert packages and all(re.search(r"--hash=sha256:[0-9a-f]{64}", text) for text in packages.values())


def test_setup_refuses_a_package_of_another_hash(tmp_path: Path) -> None:
    """The lock names a package that is installed here, with the hash of nothing."""
    (tmp_path / "a.lock").write_text(f"iniconfig==2.3.1 --hash=sha256:{'0' * 64}\n")
    folder = tmp_path / "environment"
    command = ["sh", ROOT / "tooling/setup.sh", folder, tmp_path / "a.lock"]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHON": sys.executable}, capture_output=True, text=True
    )
    assert done.returncode != 0 and "hash" in done.stderr.lower(), done.stderr


def test_setup_names_the_python_before_it_downloads(tmp_path: Path) -> None:
    (tmp_path / "python9").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "python9").chmod(0o755)
    command = ["sh", ROOT / "tooling/setup.sh", tmp_path / "environment", "requirements.lock"]
    environment = os.environ | {"PYTHON": str(tmp_path / "python9")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and "needs Python 3.11" in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "environment").exists()


def test_setup_replaces_an_environment_of_another_python(tmp_path: Path) -> None:
    folder = tmp_path / "environment"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/python").write_text("#!/bin/sh\nexit 1\n")
    (folder / "bin/python").chmod(0o755)
    (tmp_path / "empty.lock").write_text("# Nothing.\n")
    command = ["sh", ROOT / "tooling/setup.sh", folder, tmp_path / "empty.lock"]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHON": sys.executable}, check=True, capture_output=True)
    run(folder / "bin/python", "-c", "import sys; assert sys.prefix != sys.base_prefix")


def test_check_of_an_environment_asks_for_the_named_python(tmp_path: Path) -> None:
    """What `make` runs first, so that an environment of another Python does not stay."""
    for name, version in {"environment/bin/python": "3.11", "python3.12": "3.12", "broken/bin/python": ""}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\necho {version}\n" if version else "#!/bin/sh\nexit 1\n")
        path.chmod(0o755)

    def check(folder: str, python: str = "") -> str:
        command = ["sh", ROOT / "tooling/setup.sh", "--check", tmp_path / folder]
        environment = os.environ | {"PYTHON": python and str(tmp_path / python)}
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout

    assert check("none") == check("environment") == check("environment", "environment/bin/python") == ""
    assert check("broken") and check("environment", "python3.12")


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


AUDIT = '{"dependencies": [{"name": "a", "version": "1", %s}]}'


@pytest.mark.parametrize(
    ("answer", "options", "code", "message"),
    [
        (AUDIT % '"vulns": []', [], 0, "6 packages audited, 0 unknown to the service, 0 vulnerabilities"),
        (AUDIT % '"vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]', [], 1, "a 1: CVE-1, fixed in 2"),
        (AUDIT % '"skip_reason": "not found"', [], 0, "not reachable, so no package was audited"),
        ("", [], 0, "not reachable, so no package was audited"),
        ("", ["--strict"], 1, "not reachable, so no package was audited"),
    ],
)
def test_an_audit_says_what_it_could_not_ask(
    tmp_path: Path, answer: str, options: list[str], code: int, message: str
) -> None:
    """Programs of the same names answer as pip-audit and cyclonedx-py do, which have an environment of their own."""
    (tmp_path / "python").symlink_to(sys.executable)
    for name, text in {"pip-audit": f"cat <<'END'\n{answer}\nEND\n", "cyclonedx-py": "exit 0\n"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}")
        (tmp_path / name).chmod(0o755)
    listed = run(tmp_path / "python", "tooling/audit.py", tmp_path / "sbom", *options, expected=code)
    assert message in listed


def test_the_list_of_known_secrets_is_short() -> None:
    """A new entry is a secret in the repository, or a test's; it needs a second look."""
    known = json.loads((ROOT / ".secrets.baseline").read_text())
    assert {"AWSKeyDetector", "PrivateKeyDetector", "GitHubTokenDetector"} <= {
        entry["name"] for entry in known["plugins_used"]
    }
    assert set(known["results"]) == {"hand1000/registry/connection.py", "tests/registry/test_connection.py"}
