"""The requests of `make register` to a control plane, and the checks of what it would refuse."""

import itertools
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from flyteidl.core.execution_pb2 import WorkflowExecution
from google.protobuf.json_format import MessageToDict

from hand1000.config.settings import load_settings
from hand1000.core.errors import Hand1000Error
from tasks.resources import resources_table
from tests.support.flyte_admin import FlyteAdmin, serving
from tests.support.short_demo import PYFLYTE, ROOT
from workflows.schedules import FILE, load_schedules

SIX = ["call", "four", "like", "mute", "ok", "palm"]


@pytest.fixture(scope="module")
def registered() -> Iterator[FlyteAdmin]:
    """The simulated control plane after `make register`."""
    admin = FlyteAdmin()
    with serving(admin) as environment:
        command = ["make", "register", "DOMAIN=staging", "VERSION=v7", "REGISTRY=registry.example"]
        done = subprocess.run(
            command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=200
        )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    yield admin


def test_everything_is_registered_under_one_version(registered: FlyteAdmin) -> None:
    requests = [*registered.tasks.values(), *registered.workflows.values(), *registered.launch_plans.values()]
    assert {(request.id.project, request.id.domain, request.id.version) for request in requests} == {
        ("hand1000", "staging", "v7")
    }
    tasks = {name.rpartition(".")[2] for name in registered.tasks}
    assert tasks >= set(itertools.chain(*resources_table().tasks.values())) - {"write_sweeps"}
    workflows = {f"workflows.{name}.{name}" for name in ("train_gesture", "retrain", "build_dataset", "sweep")}
    assert workflows <= set(registered.workflows)
    for name, request in registered.tasks.items():
        image = request.spec.template.container.image
        assert image in ("registry.example/hand1000-cpu:v7", "registry.example/hand1000-gpu:v7"), name


def test_only_active_schedules_are_activated(registered: FlyteAdmin) -> None:
    assert sorted(registered.active) == [f"retrain_{gesture}" for gesture in SIX]
    # Each workflow also has a launch plan of its own name, which nothing starts.
    assert "workflows.train_gesture.train_gesture" in registered.launch_plans


def python_value(literal: Any) -> Any:
    """Return the Python value of a literal."""
    if literal.scalar.HasField("binary"):
        import msgpack

        return msgpack.unpackb(literal.scalar.binary.value)
    primitive = literal.scalar.primitive
    return getattr(primitive, primitive.WhichOneof("value"))


@pytest.mark.parametrize("day", range(1, 7))
def test_spec_of_each_launch_plan_is_complete(registered: FlyteAdmin, day: int) -> None:
    gesture = SIX[day - 1]
    spec = registered.launch_plans[f"retrain_{gesture}"].spec
    (row,) = (row for row in load_schedules().rows if row.gesture == gesture)
    literals = {name: python_value(literal) for name, literal in spec.fixed_inputs.literals.items()}
    sent = MessageToDict(spec)
    del sent["fixedInputs"]
    assert row.settings == load_settings("default").with_overrides({"gates.on_failed_gate": "fail"})
    assert literals == {
        "gesture": gesture,
        "images": 1000,
        "data": "s3://hand1000-data/hagrid",
        "base_model": "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "root": "s3://hand1000-artifacts/root",
        "shards": 8,
        "settings": row.settings.model_dump(mode="json"),
    }
    identity = {"resourceType": "WORKFLOW", "project": "hand1000", "domain": "staging", "version": "v7"}
    phases = [
        WorkflowExecution.Phase.Name(number) for number in (WorkflowExecution.FAILED, WorkflowExecution.TIMED_OUT)
    ]
    assert sent == {
        "workflowId": {**identity, "name": "workflows.retrain.retrain"},
        "entityMetadata": {
            "schedule": {"cronSchedule": {"schedule": f"0 1 * * {day}"}, "kickoffTimeInputArg": "kickoff"},
            "notifications": [{"phases": phases, "email": {"recipientsEmail": ["hand1000@example.com"]}}],
        },
        "defaultInputs": sent["defaultInputs"],
        "labels": {"values": {"team": "hand1000", "gesture": gesture}},
        "annotations": {},
        "rawOutputDataConfig": {},
        "maxParallelism": 6,
    }


def test_schedule_leaves_only_the_start_time_unbound(registered: FlyteAdmin) -> None:
    """A control plane refuses a schedule whose workflow would lack an input."""
    for gesture in SIX:
        spec = registered.launch_plans[f"retrain_{gesture}"].spec
        inputs = registered.workflows[spec.workflow_id.name].spec.template.interface.inputs.variables
        required = {name for name, parameter in spec.default_inputs.parameters.items() if parameter.required}
        assert required == {spec.entity_metadata.schedule.kickoff_time_input_arg}
        assert set(spec.fixed_inputs.literals) | required == set(inputs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cron": "0 3 * * ? *"}, "rows.0.cron: 6 fields; write five: minute, hour, day of month, month, day of week"),
        ({"cron": "0 25 * * *"}, "rows.0.cron: hour '25': out of range; give 0 to 23, N-M, ./STEP"),
        ({"cron": "0 1 31 2 *"}, "rows.0.cron: never runs"),
        ({"gesture": "foo"}, "rows.0.gesture: .*'call'"),
        ({"max_parallelism": 9}, "rows.0.max_parallelism: .*the quota of tasks/resources.yaml holds 8"),
        ({"settings": {"preset": 3}}, "rows.0.settings: .*unknown preset 3"),
        ({"crom": "0 1 * * 1"}, "rows.0.crom: unknown field"),
        ({"gates": {}}, "rows.0.gates: unknown field"),
        ({"settings": {"preset": "default", "gates": {"kid_h": {"threshold": -1}}}}, "settings.gates.kid_h.threshold"),
        ({"notify": [{"to": ["nobody"], "by": "email", "when": ["FAILED"]}]}, "rows.0.notify.0.to.0"),
        ({"labels": {"team": "two words"}}, "rows.0.labels.team"),
        ({"root": "artifacts"}, "rows.0.root"),
        ({"gesture": "four"}, "four is repeated"),
    ],
)
def test_schedules_that_a_control_plane_refuses_are_errors(change: dict, message: str, tmp_path: Path) -> None:
    values = yaml.safe_load(FILE.read_text())
    values["rows"][0] |= change
    path = tmp_path / "schedules.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(Hand1000Error, match=message):
        load_schedules(path)


def test_everything_is_packaged(tmp_path: Path) -> None:
    package = tmp_path / "pkg.tgz"
    command = [str(PYFLYTE), "--pkgs", "workflows", "package", "--image", "cpu=r.example/c:v1"]
    command += ["--image", "gpu=r.example/g:v1", "-f", "-o", str(package)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    with tarfile.open(package) as archive:
        names = archive.getnames()
    assert len([name for name in names if name.endswith("_3.pb") and "_retrain_" in name]) == len(SIX)


def test_registration_requires_a_version() -> None:
    done = subprocess.run(["make", "register"], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode != 0 and "VERSION is missing" in done.stdout
