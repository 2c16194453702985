"""The commands for a cluster, against the stand-in of the control plane in tests/support/flyte_admin.py."""

import datetime
from collections.abc import Iterator
from typing import Any

import pytest
from flyteidl.admin import launch_plan_pb2, node_execution_pb2, signal_pb2, task_execution_pb2
from flyteidl.admin import workflow_pb2 as admin_workflow_pb2
from flyteidl.core import execution_pb2, identifier_pb2, interface_pb2, types_pb2, workflow_pb2

from hand1000.cli import main as cli
from tests.support.flyte_admin import FlyteAdmin, serving


@pytest.fixture
def admin(monkeypatch: pytest.MonkeyPatch) -> Iterator[FlyteAdmin]:
    """One with the launch plan of `four`."""
    admin = FlyteAdmin()
    time = interface_pb2.Variable(type=types_pb2.LiteralType(simple=types_pb2.DATETIME))
    inputs = interface_pb2.ParameterMap(parameters={"kickoff": interface_pb2.Parameter(var=time, required=True)})
    ids = {kind: identifier_pb2.Identifier(project="hand1000", domain="development", version="v7") for kind in "ab"}
    ids["a"].name, ids["b"].name = "retrain_four", "workflows.retrain.retrain"
    ids["a"].resource_type, ids["b"].resource_type = identifier_pb2.LAUNCH_PLAN, identifier_pb2.WORKFLOW
    spec = launch_plan_pb2.LaunchPlanSpec(workflow_id=ids["b"], default_inputs=inputs)
    admin.launch_plans["retrain_four"] = launch_plan_pb2.LaunchPlanCreateRequest(id=ids["a"], spec=spec)
    template = workflow_pb2.WorkflowTemplate(
        id=ids["b"], interface={"inputs": interface_pb2.VariableMap(variables={"kickoff": time})}
    )
    admin.workflows[ids["b"].name] = admin_workflow_pb2.WorkflowCreateRequest(
        id=ids["b"], spec=admin_workflow_pb2.WorkflowSpec(template=template)
    )
    with serving(admin) as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield admin


def node(name: str, phase: int, **metadata: Any) -> Any:
    closure = node_execution_pb2.NodeExecutionClosure(phase=phase)
    closure.duration.FromTimedelta(datetime.timedelta(seconds=90))
    if phase == execution_pb2.NodeExecution.FAILED:
        closure.error.message = "cuda is\nout of memory"
    return node_execution_pb2.NodeExecution(
        id=identifier_pb2.NodeExecutionIdentifier(node_id=name, execution_id={"name": "run0"}),
        closure=closure,
        metadata=node_execution_pb2.NodeExecutionMetaData(**metadata),
    )


def test_a_run_is_launched_followed_and_found(admin: FlyteAdmin, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["launch", "four", "--remote"]) == 0
    first, console = capsys.readouterr().out.splitlines()
    assert first == "run0  retrain_four v7" and console.endswith(
        "/console/projects/hand1000/domains/development/executions/run0"
    )
    kickoff = admin.inputs["run0"].literals["kickoff"].scalar.primitive.datetime.ToDatetime(datetime.UTC)
    assert abs(datetime.datetime.now(datetime.UTC) - kickoff) < datetime.timedelta(minutes=1)

    phases = execution_pb2.NodeExecution
    admin.nodes[""] = [
        node("start-node", phases.SUCCEEDED),
        node("n0", phases.SUCCEEDED, spec_node_id="prepare_data"),
        node("n1", phases.RUNNING, spec_node_id="train_gesture", is_parent_node=True),
    ]
    admin.nodes["n1"] = [node("n1-0", phases.FAILED, spec_node_id="train_unet")]
    assert cli.main(["status", "run0"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "run0  RUNNING",
        "  prepare_data  SUCCEEDED  90 s",
        "  train_gesture  RUNNING  90 s",
        "    train_unet  FAILED  90 s",
        "      cuda is out of memory",
        console,
    ]

    log = execution_pb2.TaskLog(name="Kubernetes logs", uri="https://logs.example/pod")
    attempt = task_execution_pb2.TaskExecution(
        id=identifier_pb2.TaskExecutionIdentifier(retry_attempt=1),
        closure=task_execution_pb2.TaskExecutionClosure(logs=[log]),
    )
    admin.attempts["n1-0"] = [attempt]
    assert cli.main(["logs", "run0"]) == 0
    assert capsys.readouterr().out == "train_unet 1  Kubernetes logs  https://logs.example/pod\n"


def test_a_run_that_waits_is_approved_once(admin: FlyteAdmin, capsys: pytest.CaptureFixture[str]) -> None:
    admin.signals = [signal_pb2.Signal(id={"signal_id": gate}) for gate in ("review", "spend")]
    assert cli.main(["approve", "run0"]) == 2
    assert "waits for several gates; choose --signal from: review, spend" in capsys.readouterr().err
    assert cli.main(["approve", "run0", "--signal", "review"]) == 0
    assert capsys.readouterr().out == "run0: review approved\n"
    assert [signal.value.scalar.primitive.boolean for signal in admin.signals] == [True, False]
    assert cli.main(["approve", "run0"]) == 0
    assert capsys.readouterr().out == "run0: spend approved\n"
    assert cli.main(["approve", "run0"]) == 2
    assert "does not wait for approval" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["launch", "foo", "--remote"], "unknown gesture 'foo'"),
        (["launch", "four"], "add --remote"),
        (["launch", "ok", "--remote"], "hand1000/development: not found"),
        (["launch", "four", "--remote", "--version", "v8"], "launch plan retrain_four v8"),
        (["status", "run7"], "execution run7"),
    ],
)
def test_what_is_not_there_is_one_line(admin: FlyteAdmin, command: list[str], message: str, capsys) -> None:
    assert cli.main(command) == 2
    error = capsys.readouterr().err
    assert error.startswith("hand1000: error: ") and message in error and error.count("\n") == 1


def test_a_control_plane_that_does_not_answer_is_named(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYTE_PLATFORM_URL", "127.0.0.1:9")
    monkeypatch.setenv("FLYTE_PLATFORM_INSECURE", "true")
    assert cli.main(["status", "run0"]) == 2
    error = capsys.readouterr().err
    assert "127.0.0.1:9, hand1000/development" in error and "set FLYTE_PLATFORM_URL" in error
