"""A stand-in for Flyte's control plane, which cannot be had here: flyteidl's AdminService over real gRPC.

It keeps what it is sent and gives it back; it runs nothing.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from flyteidl.admin import launch_plan_pb2, task_pb2, workflow_pb2
from flyteidl.service.admin_pb2_grpc import AdminServiceServicer, add_AdminServiceServicer_to_server

ENVIRONMENT = {"FLYTE_PLATFORM_INSECURE": "true"}


class FlyteAdmin(AdminServiceServicer):
    """What was created, by name, and what was activated."""

    def __init__(self) -> None:
        self.tasks: dict[str, task_pb2.TaskCreateRequest] = {}
        self.workflows: dict[str, workflow_pb2.WorkflowCreateRequest] = {}
        self.launch_plans: dict[str, launch_plan_pb2.LaunchPlanCreateRequest] = {}
        self.active: list[str] = []
        self._lock = threading.Lock()

    def CreateTask(self, request: Any, context: Any) -> Any:
        with self._lock:
            self.tasks[request.id.name] = request
        return task_pb2.TaskCreateResponse()

    def CreateWorkflow(self, request: Any, context: Any) -> Any:
        self.workflows[request.id.name] = request
        return workflow_pb2.WorkflowCreateResponse()

    def CreateLaunchPlan(self, request: Any, context: Any) -> Any:
        self.launch_plans[request.id.name] = request
        return launch_plan_pb2.LaunchPlanCreateResponse()

    def UpdateLaunchPlan(self, request: Any, context: Any) -> Any:
        if request.state == launch_plan_pb2.ACTIVE:
            self.active.append(request.id.name)
        return launch_plan_pb2.LaunchPlanUpdateResponse()


@contextmanager
def serving(admin: AdminServiceServicer) -> Iterator[dict[str, str]]:
    """Serve it on the loopback until the block ends; gives the variables that lead to it."""
    server = grpc.server(ThreadPoolExecutor(4))
    add_AdminServiceServicer_to_server(admin, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield {"FLYTE_PLATFORM_URL": f"127.0.0.1:{port}", **ENVIRONMENT}
    finally:
        server.stop(None)
