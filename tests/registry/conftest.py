"""An embedded MLflow in a sqlite file, an MLflow server on the loopback, and a tiny model."""

import shutil
from pathlib import Path

import pytest

from hand1000.registry.connection import connect
from tests.support.mlflow_server import mlflow_server
from tests.support.tiny_models import save_tiny_model


@pytest.fixture(autouse=True)
def no_server_in_environment(monkeypatch, tmp_path):
    # Set first, so that monkeypatch also undoes what the code under test sets.
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def migrated(tmp_path_factory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return Path(connect(tmp_path_factory.mktemp("migrated")).uri.removeprefix("sqlite:///"))


@pytest.fixture
def runs(tmp_path, migrated) -> Path:
    """A folder with an empty embedded MLflow, copied because the migration of a new database takes seconds."""
    (tmp_path / "runs").mkdir()
    shutil.copy(migrated, tmp_path / "runs" / migrated.name)
    return tmp_path / "runs"


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    # For one file only: the names of models in one file mean nothing to another.
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as uri:
        yield uri


@pytest.fixture(params=["embedded", "server"])
def tracking(request, runs, monkeypatch):
    if request.param == "server":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", request.getfixturevalue("server"))
    return connect(runs)
