"""The commands that reach a Flyte cluster: `launch`, `status`, `logs`, `approve`.

Of the library only these know of Flyte, and only when they are called.
"""

import argparse
import datetime
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hand1000.core.errors import Hand1000Error, one_line

if TYPE_CHECKING:
    from flytekit.models.node_execution import NodeExecution
    from flytekit.remote import FlyteRemote

_AT_ONCE = 100
_DEEPEST = 10
_WHERE = "set FLYTE_PLATFORM_URL, or FLYTECTL_CONFIG to Flyte's configuration file"


def add_remote_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add them to the commands of `hand1000`."""
    launch = commands.add_parser("launch", help="start the retraining of a gesture on a cluster")
    launch.add_argument("gesture", help="that workflows/schedules.yaml has a row of")
    launch.add_argument("--remote", action="store_true", help="on the cluster; here it is `pyflyte run`, see README.md")
    launch.add_argument("--version", help="that was registered (default: the latest)")
    launch.set_defaults(run=_launch)

    status = commands.add_parser("status", help="what a run on a cluster has come to")
    status.add_argument("execution", help="as `launch` prints it")
    status.set_defaults(run=_status)

    logs = commands.add_parser("logs", help="where the logs of a run on a cluster are")
    logs.add_argument("execution", help="as `launch` prints it")
    logs.set_defaults(run=_logs)

    approve = commands.add_parser("approve", help="let a run on a cluster go on that waits for it")
    approve.add_argument("execution", help="as `launch` prints it")
    approve.add_argument("--signal", help="which gate, where it has several")
    approve.set_defaults(run=_approve)

    for command in (launch, status, logs, approve):
        command.add_argument("--project", default="hand1000", help="default: hand1000")
        command.add_argument("--domain", default="development", help="default: development")


@contextmanager
def _control_plane(options: argparse.Namespace) -> Iterator["FlyteRemote"]:
    """The control plane of Flyte's configuration; what it refuses is told in one line."""
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
    where = f"{config.platform.endpoint}, {options.project}/{options.domain}"
    try:
        yield remote
    except FlyteEntityNotExistException as error:
        raise Hand1000Error(f"{where}: there is no such thing: {_line(error)}") from error
    except (FlyteException, grpc.RpcError) as error:
        raise Hand1000Error(
            f"{where}: the control plane refuses or does not answer: {_line(error)}; {_WHERE}"
        ) from error


def _line(error: Exception) -> str:
    details = getattr(error, "details", None)
    return one_line(details() if callable(details) else error)[:300]


def _launch(options: argparse.Namespace) -> None:
    from hand1000.gestures import gesture_phrase

    gesture_phrase(options.gesture)
    if not options.remote:
        raise Hand1000Error(
            f"launch: only with --remote; here it is `make demo GESTURE={options.gesture}` or `pyflyte run`"
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
            phase, took = NodeExecutionPhase.enum_to_string(node.closure.phase), node.closure.duration
            seconds = f"  {took.total_seconds():.0f} s" if took else ""
            print(f"{'  ' * (depth + 1)}{_name(node)}  {phase}{seconds}")
            if node.closure.error:
                print(f"{'  ' * (depth + 2)}{_line(node.closure.error.message)}")
        print(remote.generate_console_url(execution.id))


def _logs(options: argparse.Namespace) -> None:
    with _control_plane(options) as remote:
        execution = remote.client.get_execution(_identifier(options))
        for _, node in _nodes(remote, execution.id):
            tasks, _token = remote.client.list_task_executions_paginated(node.id, limit=_AT_ONCE)
            for task in tasks:
                for log in task.closure.logs:
                    print(f"{_name(node)} {task.id.retry_attempt}  {log.name}  {log.uri}")


def _approve(options: argparse.Namespace) -> None:
    with _control_plane(options) as remote:
        waiting = [signal.id.signal_id for signal in remote.list_signals(options.execution) if not _given(signal)]
        chosen = [one for one in waiting if options.signal in (None, one)]
        if len(chosen) != 1:
            asked = options.signal or ("any of several gates; name one with --signal" if waiting else "anything")
            raise Hand1000Error(
                f"{options.execution}: does not wait for {asked}; it waits for: {', '.join(waiting) or '–'}"
            )
        remote.approve(chosen[0], options.execution)
        print(f"{options.execution}: {chosen[0]} approved")


def _identifier(options: argparse.Namespace) -> Any:
    from flytekit.models.core.identifier import WorkflowExecutionIdentifier

    return WorkflowExecutionIdentifier(options.project, options.domain, options.execution)


def _given(signal: Any) -> bool:
    return signal.HasField("value")


def _nodes(
    remote: "FlyteRemote", execution: Any, parent: str | None = None, depth: int = 0
) -> Iterator[tuple[int, "NodeExecution"]]:
    """The nodes of an execution, those of a workflow within after it, each with how deep it lies."""
    token = ""
    while True:
        found, token = remote.client.list_node_executions(
            execution, limit=_AT_ONCE, token=token, unique_parent_id=parent
        )
        for node in found:
            if node.id.node_id in ("start-node", "end-node"):
                continue
            yield depth, node
            if node.metadata.is_parent_node and depth < _DEEPEST:
                yield from _nodes(remote, execution, node.id.node_id, depth + 1)
        if not token:
            return


def _name(node: "NodeExecution") -> str:
    return node.metadata.spec_node_id or node.id.node_id
