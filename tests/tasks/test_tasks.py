"""What all tasks share: shards, cache keys, and the artifacts they make."""

import sqlite3
import time
from pathlib import Path
from typing import Annotated, Any

import pytest
from flytekit import dynamic, map_task, workflow
from flytekit.core.base_task import PythonTask
from flytekit.types.directory import FlyteDirectory
from pydantic import BaseModel

from hand1000.config.settings import load_settings
from hand1000.core.errors import Hand1000Error
from hand1000.storage.artifacts import ArtifactCheckpoint
from hand1000.storage.files import write_jsonl
from tasks import decorators
from tasks.context import Artifact, RunContext, TaskContext, address, digest, shard_slice
from tasks.decorators import artifact_task
from tasks.resources import Table, resources_table


@pytest.mark.parametrize(("count", "unit", "shards"), [(10, 1, 3), (10, 4, 3), (3, 2, 5), (1, 25, 1), (100, 25, 7)])
def test_shards_cover_everything_once_and_cut_no_batch(count: int, unit: int, shards: int) -> None:
    slices = [shard_slice(count, unit, shard, shards) for shard in range(shards)]
    assert [item for part in slices for item in range(count)[part]] == list(range(count))
    assert all(part.start % unit == 0 for part in slices if range(count)[part])


class Options(BaseModel):
    """Settings of which one field does not decide the result."""

    text: str
    batch_size: int = 1

    def cache_key_fields(self) -> dict[str, str]:
        return {"text": self.text}


@pytest.fixture
def make_task(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`artifact_task` for bodies that `resources.yaml` does not name."""

    def pod_of(table: Table, task: str) -> Any:
        return table.pods["small"]

    monkeypatch.setattr(Table, "pod_of", pod_of)
    resources_table.cache_clear()
    return artifact_task


@pytest.fixture
def calls() -> list[str]:
    return []


@pytest.fixture
def write_text(make_task: Any, calls: list[str]) -> PythonTask:
    """A task with inputs of several kinds."""

    def write_text(
        context: TaskContext,
        options: Options,
        other: int,
        sources: dict[str, list[FlyteDirectory]],
        model: Annotated[str, str.lower],
        free: int,
    ) -> None:
        """Write the text of the options."""
        calls.append("built")
        (context.output_dir / "file").write_text(options.text)

    return make_task(excluded=("free",))(write_text)


def call(task: PythonTask, root: Path, **changes: Any) -> FlyteDirectory:
    inputs = {"options": Options(text="a"), "other": 1, "sources": {}, "model": "m", "free": 0}
    return task(**inputs | changes, run=RunContext(root=str(root)))


def test_flyte_sees_the_typed_inputs_and_the_run(write_text: PythonTask) -> None:
    assert write_text.python_interface.inputs == {
        "options": Options,
        "other": int,
        "sources": dict[str, list[FlyteDirectory]],
        "model": str,
        "free": int,
        "run": RunContext,
    }
    assert list(write_text.python_interface.outputs.values()) == [Artifact]
    assert write_text.metadata.cache_ignore_input_vars == ("run",)


def test_a_result_is_made_once_and_named_by_its_content(
    write_text: PythonTask, calls: list[str], tmp_path: Path
) -> None:
    first = call(write_text, tmp_path)
    assert address(call(write_text, tmp_path)) == address(first) and calls == ["built"]
    # Other inputs that give the same content give the same artifact.
    assert address(call(write_text, tmp_path, other=2)) == address(first) and len(calls) == 2
    assert digest(call(write_text, tmp_path, options=Options(text="b"))) != digest(first)


def test_every_input_decides_unless_it_is_named_otherwise(
    write_text: PythonTask, calls: list[str], tmp_path: Path
) -> None:
    artifact = call(write_text, tmp_path)
    for same in ({"options": Options(text="a", batch_size=9)}, {"model": "M"}, {"free": 1}):
        call(write_text, tmp_path, **same)
        assert len(calls) == 1, same
    for number, other in enumerate(({"other": 2}, {"model": "n"}, {"sources": {"one": [artifact]}}), start=2):
        call(write_text, tmp_path, **other)
        assert len(calls) == number, other
    # An artifact is its content, whatever the object that names it.
    call(write_text, tmp_path, sources={"one": [FlyteDirectory(address(artifact))]})
    assert len(calls) == 4


def test_a_name_that_is_no_input_is_refused(make_task: Any) -> None:
    def body(context: TaskContext, seed: int) -> None:
        """Nothing."""

    with pytest.raises(TypeError, match="body: has no input sed"):
        make_task(excluded=("sed",))(body)
    with pytest.raises(TypeError, match="body: has no input settings"):
        make_task(key_by={"settings": str})(body)


def test_what_a_task_loads_decides_and_reaches_its_body(make_task: Any, tmp_path: Path) -> None:
    version = ["1"]

    def load(run: RunContext, inputs: dict[str, Any]) -> dict[str, Any]:
        return {"tool": version[0] * inputs["count"]}

    def body(context: TaskContext, count: int) -> None:
        """Write what was loaded."""
        (context.output_dir / "file").write_text(context.loaded["tool"])

    task = make_task(load=load)(body)

    def made() -> str:
        return (Path(address(task(count=3, run=RunContext(root=str(tmp_path))))) / "file").read_text()

    assert made() == "111"
    version[0] = "2"
    assert made() == "222"


def test_a_cached_artifact_also_gives_deck_and_outputs(
    make_task: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    decks = []
    monkeypatch.setattr(decorators, "Deck", lambda name, html: decks.append((name, html)))

    def finish(result: Any) -> int:
        return result.inputs["count"] + 1

    finish.__annotations__["return"] = int

    def body(context: TaskContext, count: int) -> None:
        """Write a page."""
        (context.output_dir / "page.html").write_text(f"<p>{count}</p>")

    task = make_task(finish=finish, deck="page.html", summary="page.html")(body)
    for _ in range(2):
        assert task(count=3, run=RunContext(root=str(tmp_path))) == 4
    assert decks == [("body", "<p>3</p>")] * 2
    output = capsys.readouterr()
    assert output.out.count("<p>3</p>") == 2 and output.out.count("/page.html") == 2
    assert "body: started" in output.err and "body: already there" in output.err


def test_shards_are_mapped_and_label_their_progress(
    make_task: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from functools import partial

    def part(context: TaskContext, text: str, shard: int, shards: int) -> None:
        """Write the shard."""
        (context.output_dir / "file").write_text(f"{text} {shard} of {shards}")

    task = make_task()(part)

    @workflow
    def mapped(shard: list[int], run: RunContext) -> list[FlyteDirectory]:
        return map_task(partial(task, text="a", shards=2, run=run))(shard=shard)

    @dynamic
    def in_dynamic(root: str) -> list[FlyteDirectory]:
        return mapped(shard=[0, 1], run=RunContext(root=root))

    for run in (
        lambda: mapped(shard=[0, 1], run=RunContext(root=str(tmp_path))),
        lambda: in_dynamic(root=str(tmp_path)),
    ):
        assert [(Path(address(one)) / "file").read_text() for one in run()] == ["a 0 of 2", "a 1 of 2"]
    errors = capsys.readouterr().err
    assert "part shard 1 of 2: started" in errors and "part shard 2 of 2: already there" in errors


def test_a_deleted_artifact_is_made_again(write_text: PythonTask, calls: list[str], tmp_path: Path) -> None:
    first = call(write_text, tmp_path)
    (Path(address(first)) / "file").unlink()
    assert address(call(write_text, tmp_path)) == address(first)
    assert len(calls) == 2 and (Path(address(first)) / "file").read_text() == "a"


def test_a_failed_body_publishes_nothing(tmp_path: Path) -> None:
    def body(context: TaskContext) -> None:
        (context.output_dir / "half").write_text("half")
        raise Hand1000Error("no")

    with pytest.raises(Hand1000Error):
        decorators.run_cached("try_task", RunContext(root=str(tmp_path)), {}, body)
    assert not (tmp_path / "artifacts").exists() and not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("changes", "retrains"),
    [
        ({"generation.mu": 0.1, "generation.guidance_scale": 3.0, "generation.num_images": 9}, False),
        ({"stage3.checkpoint_every": 7, "stage3.micro_batch_size": 1, "compute.attention": "eager"}, False),
        ({"stage2.fusion_steps": 3, "stage1.max_missed": 0.1, "evaluation.min_detection_confidence": 0.1}, False),
        ({"stage3.steps": 7}, True),
        ({"stage2.lambda_": 0.1}, True),
        ({"compute.precision": "bf16"}, True),
        ({"seed": 7}, True),
        ({"stage3.validation.images": 4, "stage3.validation.images_drawn": 1}, True),
    ],
)
def test_only_what_decides_the_weights_retrains_the_unet(changes: dict[str, Any], retrains: bool) -> None:
    settings = load_settings("default")
    changed = settings.with_overrides(changes)
    assert (changed.unet_key_fields() != settings.unet_key_fields()) == retrains
    # The sampler decides the images of the validation, which are part of the artifact.
    validated = settings.with_overrides({"stage3.validation.images": 4, "stage3.validation.images_drawn": 1})
    assert validated.with_overrides({"generation.mu": 0.1}).unet_key_fields() != validated.unet_key_fields()


def test_base_images_depend_on_no_setting_of_the_tuned_model() -> None:
    settings = load_settings("default").generation
    other = settings.model_copy(update={"mu": 0.1, "autoguidance_scale": 2.0, "fuse_null_prompt": False})
    assert other.base_model_variant() == settings.base_model_variant() and other != settings


def test_training_goes_on_while_mlflow_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run = RunContext(root=str(tmp_path), run_id="four-1")
    tracker = run.open_tracker()
    other = sqlite3.connect(tmp_path / "mlflow.db")
    seconds: list[float] = []

    def train(context: TaskContext) -> None:
        other.execute("BEGIN EXCLUSIVE")
        started = time.monotonic()
        for step in range(1, 51):
            context.on_progress(step, 50, {"loss": 1 / step})
        write_jsonl(context.output_dir / "history.jsonl", [{"step": step, "loss": 1 / step} for step in range(1, 51)])
        seconds.append(time.monotonic() - started)

    result = decorators.run_cached("try_task", run, {}, train)
    assert seconds[0] < 10 and list((tmp_path / "unsent").iterdir())
    other.rollback()
    other.close()
    run.recording.outage.until = 0.0
    # A second run computes nothing, and records nothing twice.
    assert address(decorators.run_cached("try_task", run, {}, train)) == address(result) and len(seconds) == 1
    client = tracker.tracking.client
    child = client.get_run(tracker.child_run("try_task").run_id)
    assert [point.step for point in client.get_metric_history(child.info.run_id, "loss")] == list(range(1, 51))
    assert child.info.status == "FINISHED" and "hand1000.artifact.all" in child.data.tags
    assert not list((tmp_path / "unsent").iterdir())


def test_a_checkpoint_left_by_a_kill_is_removed_by_the_next_run(make_task: Any, tmp_path: Path, monkeypatch) -> None:
    def save_state(context: TaskContext, text: str) -> None:
        """Save a state, as a training does, and end."""
        with context.checkpoint.workspace() as workspace:
            state = Path(workspace) / "state"
            state.mkdir()
            (state / "weights").write_text(text)
            assert state.is_relative_to(tmp_path / "root"), "the state was not built below the root"
            context.checkpoint.save(state)
        (context.output_dir / "file").write_text(text)

    class SimulatedKillError(BaseException):
        pass

    def die(checkpoint: ArtifactCheckpoint) -> None:
        raise SimulatedKillError

    task, inputs = make_task()(save_state), {"text": "a", "run": RunContext(root=str(tmp_path / "root"))}
    with monkeypatch.context() as patch, pytest.raises(SimulatedKillError):
        patch.setattr(ArtifactCheckpoint, "clear", die)
        task(**inputs)
    assert list((tmp_path / "root/checkpoints").rglob("weights")), "the kill came too late"
    task(**inputs)
    assert not list((tmp_path / "root/checkpoints").rglob("weights"))
