"""The launch plans of `schedules.yaml`, one for each gesture."""

from pathlib import Path
from typing import Any

from flytekit import CronSchedule, Email, Labels, LaunchPlan, PagerDuty, Slack, WorkflowExecutionPhase
from flytekit.core.notification import Notification

from hand1000.config.schedules import NotifySettings, ScheduleRow, Schedules, read_schedules
from hand1000.core.errors import Hand1000Error
from tasks.resources import resources_table
from workflows.retrain import retrain

FILE = Path(__file__).with_name("schedules.yaml")
INPUTS = ("gesture", "images", "data", "base_model", "root", "shards", "settings")
CALLERS: dict[str, Any] = {"email": Email, "slack": Slack, "pagerduty": PagerDuty}


def load_schedules(path: Path = FILE) -> Schedules:
    """Read the file, whose rows stay within the quota of the cluster.

    Raises:
        Hand1000Error: See `read_schedules`; or a row asks for more pods than the quota holds.
    """
    schedules, table = read_schedules(path), resources_table()
    most = min(table.quota.holds(table.pod_of(tasks[0])) for tasks in table.tasks.values())
    for index, row in enumerate(schedules.rows):
        if row.max_parallelism > most:
            problem = f"the quota of tasks/resources.yaml holds {most} of the largest pods at once"
            raise Hand1000Error(f"{path}: rows.{index}.max_parallelism: {problem} (got {row.max_parallelism})")
    return schedules


def make_launch_plan(row: ScheduleRow) -> LaunchPlan:
    """Return the launch plan of a row, which binds all inputs but the start time, an input from the scheduler."""
    return LaunchPlan.get_or_create(
        retrain,
        name=f"retrain_{row.gesture}",
        fixed_inputs={name: getattr(row, name) for name in INPUTS},
        schedule=CronSchedule(schedule=row.cron, kickoff_time_input_arg="kickoff"),
        notifications=[_make_notification(recipients) for recipients in row.notify],
        labels=Labels({**row.labels, "gesture": row.gesture}),
        max_parallelism=row.max_parallelism,
        auto_activate=row.active,
    )


def _make_notification(recipients: NotifySettings) -> Notification:
    phases = [getattr(WorkflowExecutionPhase, phase) for phase in recipients.when]
    return CALLERS[recipients.by](phases=phases, recipients_email=recipients.to)


# pyflyte finds launch plans as attributes of a module.
globals().update({f"retrain_{row.gesture}": make_launch_plan(row) for row in load_schedules().rows})
