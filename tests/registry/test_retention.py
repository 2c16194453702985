"""What retention keeps and removes: random registries, embedded ones, and one on a server with a bucket."""

import ast
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hand1000.core.errors import Hand1000Error
from hand1000.registry.connection import connect
from hand1000.registry.holdings import Holdings, Weights
from hand1000.registry.load import load_model_folder
from hand1000.registry.retention import INTERMEDIATE_KINDS, TRAINING_KINDS, Plan, carry_out, make_plan, plan
from hand1000.registry.review import promote, reject, rollback
from hand1000.registry.tracking import RunTracker
from hand1000.registry.versions import CHAMPION, REMOVED, find_champion
from hand1000.storage.artifacts import open_store
from hand1000.storage.inventory import ARTIFACT, CACHE, CHECKPOINT, LEFTOVER, Piece
from tests.support.mlflow_server import mlflow_server
from tests.support.retention import publish, record_run, save_model
from tests.support.stores import SimulatedKill, folder_with, fresh

DAY = 86_400.0
NOW = 1000 * DAY
YEAR = 365 * DAY

KINDS = (*sorted(INTERMEDIATE_KINDS), "publish", "train_base")
NAMES = [f"{kind}/{digit * 64}" for kind in KINDS for digit in "ab"]
TIMES = st.floats(0, NOW)


@st.composite
def roots(draw) -> list[Piece]:
    names = draw(st.lists(st.sampled_from(NAMES), unique=True))
    pieces = [
        Piece(
            f"artifacts/{name}",
            ARTIFACT,
            name.split("/")[0],
            draw(TIMES),
            draw(st.integers(1, 99)),
            (f"results/{name}.json",),
        )
        for name in names
    ]
    for role, folder in ((CHECKPOINT, "checkpoints"), (CACHE, "caches"), (LEFTOVER, "results")):
        tasks = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=3))
        pieces += [Piece(f"{folder}/{name}", role, name.split("/")[0], draw(TIMES), 1) for name in tasks]
    return pieces


WEIGHTS = st.builds(
    Weights,
    name=st.just("models:/hand1000-four-candidates/1"),
    model_id=st.uuids().map(str),
    location=st.just("file:///x"),
    versions=st.just(()),
    size=st.integers(0, 99),
    since=TIMES,
    needed_for=st.sampled_from(["", "", "champion of hand1000-four", "waits for a decision"]),
    waits=st.booleans(),
    artifacts=st.frozensets(st.sampled_from(NAMES), max_size=6),
)
HOLDINGS = st.builds(
    Holdings,
    weights=st.lists(WEIGHTS, max_size=5).map(tuple),
    running_artifacts=st.frozensets(st.sampled_from(NAMES), max_size=3),
    running_since=st.none() | TIMES,
)


@settings(max_examples=400, deadline=None)
@given(pieces=roots(), holdings=HOLDINGS, keep_since=TIMES)
def test_random_registries_keep_what_they_need(pieces, holdings, keep_since):
    outcome = plan(pieces, holdings, keep_since=keep_since)
    removed = {piece.key for piece in outcome.pieces}
    assert removed | {piece.key for piece, _ in outcome.kept_pieces} == {piece.key for piece in pieces}
    assert all(reason for _, reason in (*outcome.kept_pieces, *outcome.kept_weights))
    for weights in outcome.weights:
        assert not weights.needed_for and weights.since <= keep_since and weights.size
    for weights in holdings.weights:
        if weights.needed_for and weights.size:
            assert weights in [kept for kept, _ in outcome.kept_weights]
            for name in weights.artifacts:
                assert f"artifacts/{name}" not in removed or (
                    name.split("/")[0] in TRAINING_KINDS and not weights.waits
                )
    finished = {record for piece in pieces for record in piece.records}
    for piece in outcome.pieces:
        is_dead = piece.role == CHECKPOINT and f"results/{piece.name}.json" in finished
        assert piece.used <= keep_since or is_dead
        assert holdings.running_since is None or piece.used < holdings.running_since or is_dead
        assert piece.role != ARTIFACT or piece.kind in INTERMEDIATE_KINDS
        assert piece.name not in holdings.running_artifacts or piece.role != ARTIFACT
    # Once more, on what is left: nothing to remove.
    left = [piece for piece in pieces if piece.key not in removed]
    gone = {weights.model_id for weights in outcome.weights}
    kept = Holdings(
        tuple(weights for weights in holdings.weights if weights.model_id not in gone),
        running_artifacts=holdings.running_artifacts,
        running_since=holdings.running_since,
    )
    again = plan(left, kept, keep_since=keep_since)
    assert not again.pieces and not again.weights


def collect(store, tracking, *, keep_days: float = 30.0, now: float | None = None) -> Plan:
    """Carry out a plan, check that a second one is empty, and return the first."""
    now = now or time.time() + YEAR
    outcome = make_plan(fresh(store), tracking, keep_days=keep_days, now=now)
    carry_out(outcome, store, tracking, lambda size: None)
    again = make_plan(fresh(store), tracking, keep_days=keep_days, now=now)
    assert not again.pieces and not again.weights
    return outcome


def kinds_left(store, tracking, version) -> set[str]:
    """Kinds of the artifacts of a version's run that are still there."""
    run = tracking.client.get_run(tracking.client.get_model_version(version.name, str(version.version)).run_id)
    parent = run.data.tags.get("mlflow.parentRunId", run.info.run_id)
    children = tracking.client.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent}'")
    addresses = [child.data.tags.get("hand1000.artifact.all", "") for child in children]
    return {address.split("/")[-2] for address in addresses if address and fresh(store).is_complete(address)}


def test_every_task_is_intermediate_or_a_result():
    modules = [ast.parse(path.read_text()) for path in (Path(__file__).parents[2] / "tasks").glob("*.py")]
    functions = [node for module in modules for node in module.body if isinstance(node, ast.FunctionDef)]
    tasks = {
        function.name
        for function in functions
        if any("artifact_task" in ast.unparse(decorator) for decorator in function.decorator_list)
    }
    results = {"publish", "train_base", "train_controlnet", "write_comparison", "write_sweeps"}
    assert tasks == INTERMEDIATE_KINDS | results


REVIEWING = {"prepare_data", "compute_gesture_feature", "register"}


@pytest.fixture(params=["folder", "bucket"])
def place(request, runs, tmp_path, monkeypatch):
    """A store and its registry: a folder with an embedded MLflow, or a bucket with a server whose files are there."""
    if request.param == "folder":
        yield open_store(str(runs)), connect(registry=runs)
        return
    root = request.getfixturevalue("s3_root")
    for name, value in (("AWS_DEFAULT_REGION", "us-east-1"), ("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", request.getfixturevalue("s3_server"))
    with mlflow_server(tmp_path, f"{root}/mlflow") as uri:
        yield open_store(root), connect(registry=uri)


def test_a_story_on_folder_and_bucket(place, tmp_path, model_dir):
    store, tracking = place
    first = record_run(store, tracking, tmp_path, "first", model_dir)
    promote(tracking, first.uri, who="ann", why="first")
    worse = record_run(store, tracking, tmp_path, "worse")
    reject(tracking, worse.uri, who="ann", why="worse")
    second = record_run(store, tracking, tmp_path, "second", data="shared")
    promote(tracking, second.uri, who="ann", expected_champion="any")
    third = record_run(store, tracking, tmp_path, "third", data="shared")
    waiting = record_run(store, tracking, tmp_path, "waiting")
    dataset = publish(store, tmp_path / "dataset", "publish", "a published dataset")
    store.checkpoint("train_unet", "0" * 64).save(folder_with(tmp_path / "state", {"step": "3"}))

    assert not make_plan(fresh(store), tracking, keep_days=30, now=time.time()).pieces
    outcome = collect(store, tracking)
    assert [weights.name for weights in outcome.weights] == [worse.uri]
    assert "train_unet" in {piece.kind for piece in outcome.pieces if piece.role == CHECKPOINT}
    assert kinds_left(store, tracking, worse) == set()
    assert kinds_left(store, tracking, first) == kinds_left(store, tracking, second) == REVIEWING
    assert len(kinds_left(store, tracking, third)) == len(kinds_left(store, tracking, waiting)) == 6
    assert store.is_complete(dataset)

    with pytest.raises(Hand1000Error, match=f"{worse.uri}: its weights were removed by `hand1000 gc` on 20"):
        load_model_folder(worse.uri, registry=tracking, cache=tmp_path / "cache")
    with pytest.raises(Hand1000Error, match="its weights were removed"):
        promote(tracking, worse.uri, who="ann", override="again", expected_champion="any")
    assert find_champion(tracking, ("four",)).uri == "models:/hand1000-four/2"
    for address in ("models:/hand1000-four@champion", "models:/hand1000-four@previous", waiting.uri):
        assert load_model_folder(address, registry=tracking, cache=tmp_path / "cache").is_dir()
    rollback(tracking, "four", who="ann")
    assert find_champion(tracking, ("four",)).uri == "models:/hand1000-four/1"

    # The same weights trained again are a new candidate; the old one stays as history.
    same_weights = save_model(tmp_path / "worse again", "worse")
    retrained = record_run(store, tracking, tmp_path / "retrained", "worse", same_weights)
    assert retrained.version > waiting.version and REMOVED not in retrained.tags
    assert load_model_folder(retrained.uri, registry=tracking, cache=tmp_path / "cache2").is_dir()
    collect(store, tracking)


def test_a_champion_out_of_use_is_kept_for_its_days(runs, tmp_path):
    store, tracking = open_store(str(runs)), connect(registry=runs)
    for name in ("first", "second", "third"):
        promote(tracking, record_run(store, tracking, tmp_path, name).uri, who="ann", expected_champion="any")
    first = "models:/hand1000-four-candidates/1"
    assert not make_plan(store, tracking, keep_days=30, now=time.time() + 29 * DAY).weights
    outcome = collect(store, tracking, now=time.time() + 31 * DAY)
    assert [weights.name for weights in outcome.weights] == [first]
    with pytest.raises(Hand1000Error, match="removed"):
        rollback(tracking, "four", who="ann", to=1)
    assert find_champion(tracking, ("four",)).version == 3


def test_a_recorded_decision_without_aliases_counts(runs, tmp_path):
    store, tracking = open_store(str(runs)), connect(registry=runs)
    version = record_run(store, tracking, tmp_path, "first")
    promote(tracking, version.uri, who="ann")
    tracking.client.delete_registered_model_alias("hand1000-four", CHAMPION)
    assert not make_plan(store, tracking, keep_days=0, now=time.time() + YEAR).weights


def test_review_pages_go_after_their_own_days(runs, tmp_path):
    store, tracking = open_store(str(runs)), connect(registry=runs)
    for name in ("used", "rejected"):
        version = record_run(store, tracking, tmp_path, name)
        for file, folder in (("report.html", None), ("gates.json", None), ("first.png", "images")):
            (tmp_path / file).write_text(file)
            RunTracker("hand1000", name, tracking).log_file(tmp_path / file, folder)
        if name == "used":
            promote(tracking, version.uri, who="ann")
    reject(tracking, version.uri, who="ann", why="bad")
    RunTracker("hand1000", "rejected", tracking).finish()
    RunTracker("hand1000", "used", tracking).finish()

    def pages(number: str) -> list[str]:
        run_id = tracking.client.get_model_version(version.name, number).run_id
        return sorted(file.path for file in tracking.client.list_artifacts(run_id))

    for days, count in ((29, 0), (31, 1)):
        outcome = make_plan(store, tracking, keep_days=9, now=time.time() + days * DAY, keep_reports_days=30)
        assert [report.name for report in outcome.reports] == [version.uri] * count
        carry_out(outcome, store, tracking, lambda size: None)
        assert pages("2") == ([] if count else ["gates.json", "images", "report.html"])
    assert pages("1") == ["gates.json", "images", "report.html"]
    assert not make_plan(store, tracking, keep_days=9, now=time.time() + YEAR, keep_reports_days=30).reports
    # Of the rejected one, MLflow's rows stay.
    assert len(list(runs.glob("mlartifacts/**/MLmodel"))) == len(list(runs.glob("mlartifacts/**/library.zip"))) == 1
    assert tracking.client.get_model_version(version.name, "2").tags[REMOVED]


def test_a_run_at_work_keeps_what_it_uses(runs, tmp_path):
    store, tracking = open_store(str(runs)), connect(registry=runs)
    version = record_run(store, tracking, tmp_path, "first")
    reject(tracking, version.uri, who="ann", why="bad")
    run_id = tracking.client.get_model_version(version.name, "1").run_id
    tracking.client.update_run(run_id, status="RUNNING")
    soon = time.time() + 60
    assert not make_plan(store, tracking, keep_days=0, now=soon).pieces
    # A run that was killed says that it is running for ever.
    assert make_plan(store, tracking, keep_days=0, now=soon + 8 * DAY).pieces


def test_the_wrong_registry_is_refused(runs, tmp_path):
    store, tracking = open_store(str(runs)), connect(registry=runs)
    record_run(store, tracking, tmp_path, "first")
    with pytest.raises(Hand1000Error, match="no run of this registry made any of its 6 artifacts; name the registry"):
        make_plan(store, connect(tmp_path / "other"), keep_days=30, now=time.time())


@pytest.mark.parametrize("fatal_call", [1, 2, 3])
def test_interrupted_at_any_point_it_is_finished_later(runs, tmp_path, monkeypatch, fatal_call):
    store, tracking = open_store(str(runs)), connect(registry=runs)
    for name in ("first", "second"):
        reject(tracking, record_run(store, tracking, tmp_path, name).uri, who="ann", why="bad")
    calls = []

    def count(size: int) -> None:
        calls.append(size)
        if len(calls) == fatal_call:
            raise SimulatedKill

    outcome = make_plan(store, tracking, keep_days=30, now=time.time() + YEAR)
    with pytest.raises(SimulatedKill):
        carry_out(outcome, store, tracking, count)
    collect(store, tracking)
    assert not list(Path(store.root).glob("artifacts/*/*"))
    assert not list(Path(store.root).glob("mlartifacts/**/unet.bin"))
    # The record of each candidate stays.
    assert len(tracking.client.search_model_versions("name = 'hand1000-four-candidates'")) == 2


def test_a_champion_registered_by_hand_keeps_its_data(runs, tmp_path):
    store, tracking = open_store(str(runs)), connect(registry=runs)
    trained = record_run(store, tracking, tmp_path, "first")
    reject(tracking, trained.uri, who="ann", why="bad")
    record = tracking.client.get_model_version(trained.name, "1")
    tracking.client.create_model_version("hand1000-four", str(tmp_path), tags=record.tags)
    tracking.client.set_registered_model_alias("hand1000-four", CHAMPION, "1")
    outcome = collect(store, tracking)
    assert [weights.name for weights in outcome.weights] == [trained.uri]
    assert kinds_left(store, tracking, trained) == {"prepare_data", "compute_gesture_feature"}


def test_what_is_promoted_after_the_plan_stays(runs, tmp_path):
    store, tracking = open_store(str(runs)), connect(registry=runs)
    version = record_run(store, tracking, tmp_path, "first")
    reject(tracking, version.uri, who="ann", why="bad")
    outcome = make_plan(store, tracking, keep_days=0, now=time.time() + YEAR)
    assert [weights.name for weights in outcome.weights] == [version.uri]
    promote(tracking, version.uri, who="bob", override="good after all")
    removal = carry_out(outcome, store, tracking, lambda size: None)
    assert removal.skipped[0] == version.uri and not removal.weights and not removal.pieces
    assert REMOVED not in tracking.client.get_model_version(version.name, "1").tags
    assert load_model_folder("models:/hand1000-four@champion", registry=tracking).is_dir()
    assert len(kinds_left(store, tracking, version)) == 6


def test_review_page_of_what_is_promoted_after_the_plan_stays(runs, tmp_path):
    store, tracking = open_store(str(runs)), connect(registry=runs)
    version = record_run(store, tracking, tmp_path, "first")
    (tmp_path / "report.html").write_text("a report")
    run = RunTracker("hand1000", "first", tracking)
    run.log_file(tmp_path / "report.html")
    run.finish()
    reject(tracking, version.uri, who="ann", why="bad")
    outcome = make_plan(store, tracking, keep_days=99, now=time.time() + 31 * DAY, keep_reports_days=30)
    assert [report.name for report in outcome.reports] == [version.uri] and not outcome.weights
    promote(tracking, version.uri, who="bob", override="good after all")
    removal = carry_out(outcome, store, tracking, lambda size: None)
    assert removal.skipped == [version.uri] and not removal.reports
    assert [file.path for file in tracking.client.list_artifacts(run.run_id)] == ["report.html"]


@pytest.mark.parametrize("is_promoted", [False, True])
def test_versions_are_read_again_only_after_a_change(runs, tmp_path, monkeypatch, is_promoted):
    store, tracking = open_store(str(runs)), connect(registry=runs)
    versions = [record_run(store, tracking, tmp_path, name) for name in ("first", "second", "third")]
    for version in versions:
        reject(tracking, version.uri, who="ann", why="bad")
    outcome = make_plan(store, tracking, keep_days=0, now=time.time() + YEAR)
    assert len(outcome.weights) == 3
    searches, search = [], tracking.client.search_model_versions

    def count(*arguments, **options):
        searches.append(arguments)
        return search(*arguments, **options)

    def promote_last(_: int) -> None:
        if is_promoted and len(searches) == 1:
            promote(connect(registry=runs), outcome.weights[-1].name, who="bob", override="good after all")

    monkeypatch.setattr(tracking.client, "search_model_versions", count)
    removal = carry_out(outcome, store, tracking, promote_last)
    assert len(searches) == 1 + is_promoted and len(removal.weights) == 3 - is_promoted
    assert outcome.weights[-1].name in removal.skipped or not is_promoted
