"""The rights of pipeline, reviewer and reader on a real MLflow server with accounts."""

import contextlib
import json
import os
import stat
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from mlflow.server import get_app_client

from hand1000.cli.main import main
from hand1000.core.errors import Hand1000Error
from hand1000.registry.accounts import set_up_accounts
from hand1000.registry.connection import connect
from hand1000.registry.load import load_model_folder
from hand1000.registry.register import register_candidate
from hand1000.registry.review import history, promote
from hand1000.registry.tracking import RunTracker
from hand1000.registry.versions import CHAMPION, find_champion
from tests.support.mlflow_server import ADMIN, ADMIN_PASSWORD, mlflow_server

PASSWORDS = {"pipeline": "the-pipelines-password", "reviewer": "the-reviewers-password", "reader": "the-readers-word"}
REVIEWED, CANDIDATES = "hand1000-four", "hand1000-four-candidates"


@pytest.fixture(scope="module")
def accounts_server(tmp_path_factory):
    with mlflow_server(tmp_path_factory.mktemp("accounts"), default_permission="READ") as uri:
        yield uri


@pytest.fixture
def sign_in(accounts_server, monkeypatch):
    """Return the connection of an account."""

    def sign_in(name: str, password: str = "", uri: str = accounts_server):
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", name)
        known = {ADMIN: ADMIN_PASSWORD, **PASSWORDS}
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password or known[name])
        return connect(registry=uri)

    return sign_in


@pytest.fixture
def set_up(sign_in, accounts_server, monkeypatch, tmp_path):
    """Set the accounts up by the command, with known passwords; return its exit status."""

    def set_up(*gestures: str, account: str = ADMIN, uri: str = accounts_server) -> int:
        sign_in(account, uri=uri)
        for name, password in PASSWORDS.items():
            monkeypatch.setenv(f"HAND1000_{name.upper()}_PASSWORD", password)
        arguments = [argument for gesture in gestures for argument in ("--gesture", gesture)]
        return main(["accounts", "--registry", uri, "--passwords", str(tmp_path / "passwords"), *arguments])

    return set_up


def register(tracking, model_dir, key: str = "run-1"):
    tracker = RunTracker("hand1000", key, tracking)
    tracker.log_params({"seed": 0})
    tracker.log_metrics({"tuned/KID": 0.1})
    tracker.log_file(model_dir / "model_index.json")
    child = tracker.child_run("train_unet")
    child.log_history([{"step": 0, "loss": 1.0}])
    child.finish()
    version = register_candidate(tracker, model_dir, gestures=("four",), metrics={"KID": 0.1}, card="# Card")
    tracker.finish()
    return version


def _restoring(monkeypatch, client, search):
    """Return `create_run`, after which searches find again what is there."""
    create = client.create_run

    def create_run(*args, **options):
        created = create(*args, **options)
        monkeypatch.setattr(client, "search_runs", search)
        return created

    return create_run


def assert_refused(function, *arguments) -> None:
    with pytest.raises(MlflowException) as refusal:
        function(*arguments)
    assert refusal.value.error_code == "PERMISSION_DENIED" or "403" in str(refusal.value), refusal.value


def test_each_account_does_its_part_alone(set_up, sign_in, model_dir, tmp_path, monkeypatch, capsys):
    assert set_up("four", "call,four") == 0
    assert set_up("four", "like") == 0
    shown = capsys.readouterr()
    assert not any(password in shown.out + shown.err for password in [*PASSWORDS.values(), ADMIN_PASSWORD])
    assert not (tmp_path / "passwords").exists()

    pipeline = sign_in("pipeline")
    version = register(pipeline, model_dir)
    assert register(pipeline, model_dir) == version and version.uri == f"models:/{CANDIDATES}/1"
    client = pipeline.client
    decision = ("hand1000.decision.000001", json.dumps({"action": "promote"}))
    assert find_champion(pipeline, ("four",)) is None
    for name in (REVIEWED, "hand1000-call-four", "hand1000-like"):
        assert_refused(client.copy_model_version, version.uri, name)
        assert_refused(client.create_model_version, name, "s3://bucket/elsewhere")
        assert_refused(client.set_registered_model_alias, name, CHAMPION, "1")
        assert_refused(client.set_registered_model_tag, name, *decision)
        assert_refused(client.delete_registered_model, name)
        assert_refused(client.rename_registered_model, name, "hand1000-mine")
    assert_refused(client.delete_model_version, CANDIDATES, "1")
    assert_refused(client.delete_registered_model, CANDIDATES)
    first_run, source = (getattr(client.get_model_version(CANDIDATES, "1"), name) for name in ("run_id", "source"))
    experiment = client.get_experiment_by_name("hand1000").experiment_id
    assert_refused(client.delete_run, first_run)
    assert_refused(client.delete_logged_model, source.removeprefix("models:/"))
    assert_refused(client.delete_experiment, experiment)

    with pytest.raises(Hand1000Error, match="(?i)permission|403"):
        promote(pipeline, version.uri, who="pipeline", override="as it likes")

    reviewer = sign_in("reviewer")
    decision = promote(reviewer, version.uri, who="reviewer", override="it has no gates")
    assert history(reviewer, "four") == (decision,)
    client = reviewer.client
    copy = client.get_model_version(REVIEWED, "1")
    assert client.get_model_version(CANDIDATES, "1").tags["hand1000.state"] == "approved"
    assert_refused(client.delete_model_version, CANDIDATES, "1")
    assert_refused(client.log_metric, copy.run_id, "forged", 1.0)

    pipeline = sign_in("pipeline")
    assert find_champion(pipeline, ("four",)).uri == f"models:/{REVIEWED}/1"
    assert_refused(pipeline.client.set_model_version_tag, REVIEWED, "1", "hand1000.model_digest", "0" * 64)
    assert_refused(pipeline.client.delete_registered_model_alias, REVIEWED, CHAMPION)

    # Two processes of the pipeline created the same run: the second one, which it may not delete, gives way.
    search = pipeline.client.search_runs
    monkeypatch.setattr(pipeline.client, "search_runs", lambda *args, **options: [])
    monkeypatch.setattr(pipeline.client, "create_run", _restoring(monkeypatch, pipeline.client, search))
    assert RunTracker("hand1000", "run-1", pipeline).run_id == first_run
    (closed,) = search([experiment], "tags.`hand1000.run_key` = ''")
    assert closed.info.status == "KILLED"

    reader = sign_in("reader")
    folder = load_model_folder(f"models:/{REVIEWED}@{CHAMPION}", registry=reader, cache=tmp_path / "cache")
    assert (folder / "unet").is_dir()
    for name in (REVIEWED, CANDIDATES):
        assert_refused(reader.client.set_registered_model_alias, name, "mine", "1")
        assert_refused(reader.client.set_model_version_tag, name, "1", "mine", "1")
        assert_refused(reader.client.create_model_version, name, "s3://bucket/elsewhere")
    assert_refused(reader.client.create_run, experiment)

    # The pipeline may write the files of its experiment, but not unnoticed.
    forged = tmp_path / "forged"
    forged.mkdir()
    (forged / "model_index.json").write_text((model_dir / "model_index.json").read_text().replace("0.6", "0.5"))
    sign_in("pipeline").client.log_model_artifacts(source.removeprefix("models:/"), str(forged), "weights")
    with pytest.raises(Hand1000Error, match="model_index.json: its bytes are not those that were registered"):
        load_model_folder(f"models:/{REVIEWED}@{CHAMPION}", registry=sign_in("reader"), cache=tmp_path / "other")


def test_what_the_pipeline_created_first_is_taken_over(set_up, sign_in):
    assert set_up("mute") == 0
    client = sign_in("pipeline").client
    client.create_registered_model("hand1000-ok")
    client.set_registered_model_tag("hand1000-ok", "mine", "1")
    assert set_up("ok") == 0
    client = sign_in("pipeline").client
    assert_refused(client.set_registered_model_tag, "hand1000-ok", "mine", "2")
    assert_refused(client.set_registered_model_alias, "hand1000-ok", CHAMPION, "1")
    client.set_registered_model_tag("hand1000-ok-candidates", "a note", "1")


def test_generated_passwords_are_in_a_private_file(set_up, sign_in, accounts_server, tmp_path, monkeypatch, capsys):
    admin = sign_in(ADMIN)
    for name in PASSWORDS:
        monkeypatch.delenv(f"HAND1000_{name.upper()}_PASSWORD", raising=False)
        with contextlib.suppress(MlflowException):
            get_app_client("basic-auth", tracking_uri=admin.uri).delete_user(name)
    file = tmp_path / "passwords"
    command = ["accounts", "--registry", accounts_server, "--gesture", "four", "--passwords", str(file)]
    assert main(command) == 0
    passwords = dict(line.split() for line in file.read_text().splitlines())
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600 and set(passwords) == set(PASSWORDS)
    shown = capsys.readouterr()
    assert not any(password in shown.out + shown.err for password in passwords.values())
    assert sign_in("reader", passwords["reader"]).client.get_registered_model(REVIEWED)
    sign_in(ADMIN)
    assert main(command) == 0  # Nothing to generate any more.
    assert file.read_text().splitlines() == [f"{name} {password}" for name, password in passwords.items()]


def test_only_the_administrator_may(set_up, sign_in):
    assert set_up("four") == 0
    for account, password, message in (
        ("pipeline", "", "pipeline is not its administrator"),
        ("nobody", "a-wrong-password", "cannot manage accounts"),
    ):
        with pytest.raises(Hand1000Error, match=message) as refusal:
            set_up_accounts(sign_in(account, password), ["four"], Path("unused"))
        assert "password" not in str(refusal.value).replace("MLFLOW_TRACKING_PASSWORD", "")


def test_a_generous_server_is_refused(set_up, tmp_path, capsys):
    with mlflow_server(tmp_path, default_permission="EDIT") as uri:
        assert set_up("four", uri=uri) == 2
    assert "pipeline has EDIT on hand1000-four instead of READ; set default_permission" in capsys.readouterr().err


def test_an_mlflow_without_accounts_is_refused(runs, server):
    with pytest.raises(Hand1000Error, match="an MLflow without accounts"):
        set_up_accounts(connect(runs), ["four"], Path("unused"))
    with pytest.raises(Hand1000Error, match="start the server with --app-name basic-auth"):
        set_up_accounts(connect(registry=server), ["four"], Path("unused"))
