"""The commands for a Flyte cluster: `launch`, `status`, `logs` and `approve`. They alone import Flyte, when called."""

import argparse
import datetime
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hand1000.core.errors import Hand1000Error, one_line

if TYPE_CHECKING:
    from flytekit.models.node_execution import NodeExecution
    from flytekit.remote import FlyteRemote

_PAGE_SIZE = 100
_MAX_DEPTH = 10
_REMEDY = "set FLYTE_PLATFORM_URL, or FLYTECTL_CONFIG to Flyte's configuration file"


def add_remote_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `launch`, `status`, `logs` and `approve` to the commands of `hand1000`."""
    launch = commands.add_parser("launch", help="start the retraining of a gesture on a cluster")
    launch.add_argument("gesture", help="gesture with a row in workflows/schedules.yaml")
    launch.add_argument("--remote", action="store_true", help="run on the cluster (use `pyflyte run` to run locally)")
    launch.add_argument("--version", help="registered version of the launch plan (default: latest)")
    launch.set_defaults(run=_launch)

    status = commands.add_parser("status", help="show the status of an execution and of its tasks")
    status.set_defaults(run=_status)
    logs = commands.add_parser("logs", help="list the links to the logs of an execution")
    logs.set_defaults(run=_logs)
    approve = commands.add_parser("approve", help="approve an execution that waits for a reviewer")
    approve.add_argument("--signal", help="name of the gate, if it has several")
    approve.set_defaults(run=_approve)

    for command in (status, logs, approve):
        command.add_argument("execution", help="name, as printed by `launch`")
    for command in (launch, status, logs, approve):
        command.add_argument("--project", default="hand1000", help="default: hand1000")
        command.add_argument("--domain", default="development", help="default: development")


@contextmanager
def _control_plane(options: argparse.Namespace) -> Iterator["FlyteRemote"]:
    """Connect to the configured control plane and report its errors in one line."""
    try:
        import grpc
        from flytekit.configuration import Config
        from flytekit.exceptions.base import FlyteException
        from flytekit.exceptions.user import FlyteEntityNotExistException
        from flytekit.remote import FlyteRemote
    except ImportError as error:
        raise Hand1000Error(f"{error.name} is not installed; pip install 'hand1000[cluster]'") from error

    config = Config.auto()
    remote = FlyteRemote(config, default_project=options.project, default_domain=options.domain)
    endpoint = f"{config.platform.endpoint}, {options.project}/{options.domain}"
    try:
        yield remote
    except FlyteEntityNotExistException as error:
        raise Hand1000Error(f"{endpoint}: not found: {_first_line(error)}") from error
    except (FlyteException, grpc.RpcError) as error:
        raise Hand1000Error(
            f"{endpoint}: the control plane refuses or does not answer: {_first_line(error)}; {_REMEDY}"
        ) from error


def _first_line(error: Exception) -> str:
    details = getattr(error, "details", None)
    return one_line(details() if callable(details) else error)[:300]


def _launch(options: argparse.Namespace) -> None:
    from hand1000.gestures import gesture_phrase

    gesture_phrase(options.gesture)
    if not options.remote:
        raise Hand1000Error(
            f"launch: add --remote; to run locally, use `make demo GESTURE={options.gesture}` or `pyflyte run`"
        )
    with _control_plane(options) as remote:
        plan = remote.fetch_launch_plan(name=f"retrain_{options.gesture}", version=options.version)
        execution = remote.execute(plan, inputs={"kickoff": datetime.datetime.now(datetime.UTC)})
        print(f"{execution.id.name}  {plan.id.name} {plan.id.version}\n{remote.generate_console_url(execution)}")


def _status(options: argparse.Namespace) -> None:
    from flytekit.models.core.execution import NodeExecutionPhase, WorkflowExecutionPhase

    with _control_plane(options) as remote:
        execution = remote.client.get_execution(_identifier(options))
        closure = execution.closure
        print(f"{options.execution}  {WorkflowExecutionPhase.enum_to_string(closure.phase)}")
        for depth, node in _nodes(remote, execution.id):
            phase, duration = NodeExecutionPhase.enum_to_string(node.closure.phase), node.closure.duration
            seconds = f"  {duration.total_seconds():.0f} s" if duration else ""
            print(f"{'  ' * (depth + 1)}{_name(node)}  {phase}{seconds}")
            if node.closure.error:
                print(f"{'  ' * (depth + 2)}{_first_line(node.closure.error.message)}")
        print(remote.generate_console_url(execution.id))


def _logs(options: argparse.Namespace) -> None:
    with _control_plane(options) as remote:
        execution = remote.client.get_execution(_identifier(options))
        for _, node in _nodes(remote, execution.id):
            tasks, _token = remote.client.list_task_executions_paginated(node.id, limit=_PAGE_SIZE)
            for task in tasks:
                for log in task.closure.logs:
                    print(f"{_name(node)} {task.id.retry_attempt}  {log.name}  {log.uri}")


def _approve(options: argparse.Namespace) -> None:
    with _control_plane(options) as remote:
        signals = remote.list_signals(options.execution)
        pending = [signal.id.signal_id for signal in signals if not signal.HasField("value")]
        matching = [gate for gate in pending if options.signal in (None, gate)]
        if len(matching) != 1:
            problem = f"does not wait for {options.signal or 'approval'}" if not matching else "waits for several gates"
            raise Hand1000Error(
                f"{options.execution}: {problem}; choose --signal from: {', '.join(pending) or '(none is pending)'}"
            )
        remote.approve(matching[0], options.execution)
        print(f"{options.execution}: {matching[0]} approved")


def _identifier(options: argparse.Namespace) -> Any:
    from flytekit.models.core.identifier import WorkflowExecutionIdentifier

    return WorkflowExecutionIdentifier(options.project, options.domain, options.execution)


def _nodes(
    remote: "FlyteRemote", execution: Any, parent: str | None = None, depth: int = 0
) -> Iterator[tuple[int, "NodeExecution"]]:
    """Yield the nodes of an execution with their depth; the nodes of a subworkflow follow its own."""
    token = ""
    while True:
        nodes, token = remote.client.list_node_executions(
            execution, limit=_PAGE_SIZE, token=token, unique_parent_id=parent
        )
        for node in nodes:
            if node.id.node_id in ("start-node", "end-node"):
                continue
            yield depth, node
            if node.metadata.is_parent_node and depth < _MAX_DEPTH:
                yield from _nodes(remote, execution, node.id.node_id, depth + 1)
        if not token:
            return


def _name(node: "NodeExecution") -> str:
    return node.metadata.spec_node_id or node.id.node_id
