"""A stand-in for Flyte's control plane, which cannot be had here: flyteidl's AdminService over real gRPC.

It keeps what it is sent and gives it back; it runs nothing.
"""

# ruff: noqa: N802 (names of the gRPC service)
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from flyteidl.admin import (
    execution_pb2,
    launch_plan_pb2,
    node_execution_pb2,
    signal_pb2,
    task_execution_pb2,
    task_pb2,
    workflow_pb2,
)
from flyteidl.core import compiler_pb2, identifier_pb2
from flyteidl.core import execution_pb2 as core
from flyteidl.service.admin_pb2_grpc import AdminServiceServicer, add_AdminServiceServicer_to_server
from flyteidl.service.signal_pb2_grpc import SignalServiceServicer, add_SignalServiceServicer_to_server

ENVIRONMENT = {"FLYTE_PLATFORM_INSECURE": "true"}


class FlyteAdmin(AdminServiceServicer, SignalServiceServicer):
    """What was created, by name, and what was activated; nodes, attempts and signals are as a test puts them."""

    def __init__(self) -> None:
        self.tasks: dict[str, task_pb2.TaskCreateRequest] = {}
        self.workflows: dict[str, workflow_pb2.WorkflowCreateRequest] = {}
        self.launch_plans: dict[str, launch_plan_pb2.LaunchPlanCreateRequest] = {}
        self.active: list[str] = []
        self.executions: dict[str, Any] = {}
        self.inputs: dict[str, Any] = {}
        self.nodes: dict[str, list[Any]] = {}
        self.attempts: dict[str, list[Any]] = {}
        self.signals: list[Any] = []
        self._lock = threading.Lock()

    def CreateTask(self, request: Any, context: Any) -> Any:
        with self._lock:
            self.tasks[request.id.name] = request
        return task_pb2.TaskCreateResponse()

    def CreateWorkflow(self, request: Any, context: Any) -> Any:
        self.workflows[request.id.name] = request
        return workflow_pb2.WorkflowCreateResponse()

    def GetWorkflow(self, request: Any, context: Any) -> Any:
        created = self.workflows[request.id.name]
        compiled = compiler_pb2.CompiledWorkflowClosure(primary={"template": created.spec.template})
        return workflow_pb2.Workflow(id=created.id, closure=workflow_pb2.WorkflowClosure(compiled_workflow=compiled))

    def CreateLaunchPlan(self, request: Any, context: Any) -> Any:
        self.launch_plans[request.id.name] = request
        return launch_plan_pb2.LaunchPlanCreateResponse()

    def ListLaunchPlans(self, request: Any, context: Any) -> Any:
        found = [self._plan(request.id.name)] if request.id.name in self.launch_plans else []
        return launch_plan_pb2.LaunchPlanList(launch_plans=found)

    def GetLaunchPlan(self, request: Any, context: Any) -> Any:
        if request.id.name not in self.launch_plans or request.id.version != self._plan(request.id.name).id.version:
            context.abort(grpc.StatusCode.NOT_FOUND, f"launch plan {request.id.name} {request.id.version}")
        return self._plan(request.id.name)

    def _plan(self, name: str) -> Any:
        """As the control plane completes it: with the inputs that are still expected."""
        created = self.launch_plans[name]
        expected = launch_plan_pb2.LaunchPlanClosure(expected_inputs=created.spec.default_inputs)
        return launch_plan_pb2.LaunchPlan(id=created.id, spec=created.spec, closure=expected)

    def CreateExecution(self, request: Any, context: Any) -> Any:
        name = f"run{len(self.executions)}"
        identifier = identifier_pb2.WorkflowExecutionIdentifier(
            project=request.project, domain=request.domain, name=name
        )
        closure = execution_pb2.ExecutionClosure(phase=core.WorkflowExecution.RUNNING)
        self.executions[name] = execution_pb2.Execution(id=identifier, spec=request.spec, closure=closure)
        self.inputs[name] = request.inputs
        return execution_pb2.ExecutionCreateResponse(id=identifier)

    def GetExecution(self, request: Any, context: Any) -> Any:
        if request.id.name not in self.executions:
            context.abort(grpc.StatusCode.NOT_FOUND, f"execution {request.id.name}")
        return self.executions[request.id.name]

    def GetExecutionData(self, request: Any, context: Any) -> Any:
        return execution_pb2.WorkflowExecutionGetDataResponse()

    def ListNodeExecutions(self, request: Any, context: Any) -> Any:
        return node_execution_pb2.NodeExecutionList(node_executions=self.nodes.get(request.unique_parent_id, []))

    def ListTaskExecutions(self, request: Any, context: Any) -> Any:
        found = self.attempts.get(request.node_execution_id.node_id, [])
        return task_execution_pb2.TaskExecutionList(task_executions=found)

    def ListSignals(self, request: Any, context: Any) -> Any:
        return signal_pb2.SignalList(signals=self.signals)

    def SetSignal(self, request: Any, context: Any) -> Any:
        for signal in self.signals:
            if signal.id.signal_id == request.id.signal_id:
                signal.value.CopyFrom(request.value)
        return signal_pb2.SignalSetResponse()

    def UpdateLaunchPlan(self, request: Any, context: Any) -> Any:
        if request.state == launch_plan_pb2.ACTIVE:
            self.active.append(request.id.name)
        return launch_plan_pb2.LaunchPlanUpdateResponse()


@contextmanager
def serving(admin: FlyteAdmin) -> Iterator[dict[str, str]]:
    """Serve it on the loopback until the block ends; gives the variables that lead to it."""
    server = grpc.server(ThreadPoolExecutor(4))
    add_AdminServiceServicer_to_server(admin, server)
    add_SignalServiceServicer_to_server(admin, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield {"FLYTE_PLATFORM_URL": f"127.0.0.1:{port}", **ENVIRONMENT}
    finally:
        server.stop(None)
