"""containers/: the Dockerfiles pass Hadolint and our policy, and their packages can be installed."""

import copy
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from sqlalchemy import make_url

from tests.support.container_policy import faults_of_compose, faults_of_dockerfile
from tests.support.infra_tools import BIN, packages_of_lock, run
from tests.support.short_demo import ROOT

DOCKERFILES = sorted((ROOT / "containers").glob("*.Dockerfile"))
INSTALL = re.compile(r"/opt/venv/bin/pip (install [^\n\\]*[^\s\\])")
PIP = re.compile(r"\bpip3? install\b")


MODULES = {
    "cpu": "hand1000.pipelines.pipeline_hand1000, flytekit",
    "gpu": "hand1000.pipelines.pipeline_hand1000, flytekit",
    "mlflow": "mlflow.server.auth",
    "serve": "hand1000.pipelines.pipeline_hand1000, hand1000.serving.server",
}
"""By Dockerfile: what a container imports at its start."""


def test_every_dockerfile_is_tested() -> None:
    assert [path.stem for path in DOCKERFILES] == list(MODULES)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_dockerfiles_pass_hadolint_and_the_policy(path: Path) -> None:
    assert run(BIN / "hadolint", path) == ""
    assert faults_of_dockerfile(path.read_text()) == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("USER 1000", "", "root"),
        ("USER 1000", "USER 0", "root"),
        ("USER 1000", "USER mlflow", "by name"),
        (r"@sha256:[0-9a-f]{64}\n", "\n", "moving base"),
        ("RUN useradd", "RUN apt-get install -y gcc && useradd", "build tools"),
        (r"HEALTHCHECK[^\n]*\\\n[^\n]*\n", "", "healthcheck"),
        (r"LABEL ", "ENV ", "no labels"),
        ("ENV PATH", "ENV DB_PASSWORD=x PATH", "plain ENV"),
    ],
)
def test_the_policy_detects_a_fault_of_a_dockerfile(old: str, new: str, message: str) -> None:
    text = (ROOT / "containers/mlflow.Dockerfile").read_text()
    broken = re.sub(old, new, text)
    assert broken != text and any(message in fault for fault in faults_of_dockerfile(broken))


def test_hadolint_detects_a_fault(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM python\nRUN pip install mlflow\n")
    assert "DL3006" in run(BIN / "hadolint", tmp_path / "Dockerfile", expected=1)


def compose() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "containers/compose.yaml").read_text())


def test_compose_follows_the_policy() -> None:
    assert faults_of_compose(compose()) == []
    required = set(re.findall(r"\$\{(\w+):\?", (ROOT / "containers/compose.yaml").read_text()))
    assert required == {line[:-1] for line in (ROOT / "containers/example.env").read_text().splitlines() if "=" in line}
    assert any("healthcheck" in service for service in compose()["services"].values())


def test_the_database_addresses_name_a_driver_that_is_installed() -> None:
    """SQLAlchemy 2.1 reads `postgresql://` as psycopg 3, which the image does not have."""
    chart = (ROOT / "infra/mlflow/templates/secret.yaml").read_text()
    addresses = [compose()["services"]["mlflow"]["environment"]["MLFLOW_BACKEND_STORE_URI"], chart]
    for address in addresses:
        scheme = re.search(r"(postgresql\S*)://", address)
        assert scheme and make_url(f"{scheme[1]}://mlflow@host/mlflow").get_dialect().import_dbapi()


@pytest.mark.parametrize(
    ("service", "change", "message"),
    [
        ("s3", {"user": "0"}, "s3: root"),
        ("s3", {"image": "chrislusf/seaweedfs:4.29"}, "moving image"),
        ("s3", {"deploy": {}}, "no limits"),
        ("s3", {"read_only": False}, "writable root"),
        ("s3", {"ports": ["8333:8333"]}, "open port"),
        ("postgres", {"environment": {"POSTGRES_PASSWORD": "x"}}, "plain POSTGRES_PASSWORD"),
        ("mlflow", {"environment": {"STORE": "postgresql://mlflow:x@postgres/mlflow"}}, "plain STORE"),
    ],
)
def test_the_policy_detects_a_fault_of_compose(service: str, change: dict, message: str) -> None:
    broken = copy.deepcopy(compose())
    broken["services"][service] |= change
    assert any(message in fault for fault in faults_of_compose(broken))


def pip_arguments(path: Path) -> list[str]:
    """The arguments of every call of pip in a Dockerfile; all calls have the same form."""
    text = path.read_text()
    arguments = INSTALL.findall(text)
    assert arguments and len(arguments) == len(PIP.findall(text.replace("/opt/venv/bin/pip", "pip")))
    return [line.replace("${TORCH}", "torch-cpu") for line in arguments]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_an_image_installs_only_locked_packages(path: Path) -> None:
    copied = re.findall(r"containers/([\w-]+\.lock)", path.read_text())
    for arguments in pip_arguments(path):
        locks = re.findall(r"-r \"?([\w-]+\.lock)", arguments)
        assert "--no-deps" in arguments and set(locks) <= set(copied)
        assert "--require-hashes" in arguments if locks else arguments.endswith("--no-build-isolation .")


EXTRAS = {"cpu": "cluster", "serve": "serve"}


@pytest.mark.parametrize("lock", sorted((ROOT / "containers").glob("*.lock")), ids=lambda path: path.stem)
def test_every_package_of_a_lock_has_hashes_and_its_dependencies(lock: Path) -> None:
    """pip installs a lock without resolving, so nothing that a package needs may be missing."""
    packages = packages_of_lock(lock)
    assert packages and all("--hash=sha256:" in text for text in packages.values())
    needed = set()
    if lock.stem in EXTRAS:
        needed |= needed_by("hand1000", EXTRAS[lock.stem])
    if lock.stem in ("cpu", "serve", "mlflow"):
        for name, text in packages.items():
            # The lock holds packages that only one of the two Pythons needs.
            marker = re.search(r";([^\\\n]*)", text)
            if not marker or Marker(marker[1]).evaluate():
                needed |= needed_by(name)
    # "tomli" is for older Pythons. The torch of PyPI needs CUDA, and its toolkit, which only installs the others.
    cuda = {*packages_of_lock(ROOT / "containers/cuda.lock"), "cuda-toolkit"}
    assert needed - set(packages) - {"tomli"} <= cuda


def needed_by(name: str, extra: str = "") -> set[str]:
    """The names of the packages that an installed package requires on this machine."""
    requirements = [Requirement(text) for text in metadata.requires(name) or []]
    return {
        canonicalize_name(requirement.name)
        for requirement in requirements
        if not requirement.marker or requirement.marker.evaluate({"extra": extra})
    }


@pytest.mark.slow
@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_an_images_packages_install_into_a_fresh_environment(path: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    for arguments in pip_arguments(path):
        arguments = re.sub(r"-r \"?([\w-]+\.lock)\"?", r"-r containers/\1", arguments)
        done = subprocess.run(
            ["sh", "-c", f"{tmp_path}/venv/bin/pip {arguments}"], cwd=ROOT, capture_output=True, text=True, timeout=1200
        )
        assert done.returncode == 0, done.stderr[-2000:]
    run(tmp_path / "venv/bin/python", "-c", f"import {MODULES[path.stem]}", cwd=tmp_path)


def test_the_image_serve_needs_no_system_packages() -> None:
    """Its Dockerfile installs none, so the server must not import what OpenCV, MediaPipe or Mitsuba load."""
    script = (
        "import sys; from hand1000.cli.main import main\n"
        "import hand1000.serving.server, hand1000.serving.safety, hand1000.registry.load\n"
        "import hand1000.pipelines.pipeline_hand1000, hand1000.pipelines.generation\n"
        "print([name for name in ('cv2', 'mediapipe', 'mitsuba') if name in sys.modules])"
    )
    assert run(sys.executable, "-c", script).splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ports": ["0.0.0.0:8000:8000"]}, "serve: open port"),
        ({"environment": {"MLFLOW_TRACKING_PASSWORD": "x"}}, "serve: plain MLFLOW_TRACKING_PASSWORD"),
        ({"deploy": {"resources": {"limits": {"cpus": "1"}}}}, "serve: no limits"),
    ],
)
def test_the_policy_detects_a_fault_of_the_service_serve(change: dict, message: str) -> None:
    broken = copy.deepcopy(compose())
    broken["services"]["serve"] |= change
    assert any(message in fault for fault in faults_of_compose(broken))
