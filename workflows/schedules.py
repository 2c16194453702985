"""The launch plans of `schedules.yaml`, one for each gesture."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from croniter import croniter
from flytekit import CronSchedule, Email, Labels, LaunchPlan, PagerDuty, Slack, WorkflowExecutionPhase
from flytekit.core.notification import Notification
from pydantic import Field, field_validator, model_validator

from hand1000.config.base import FrozenSettings, validate_settings
from hand1000.config.settings import Settings
from hand1000.core.documents import read_yaml
from hand1000.gestures import PHRASES
from tasks.resources import resources_table
from workflows.retrain import retrain

FILE = Path(__file__).with_name("schedules.yaml")
INPUTS = ("gesture", "images", "data", "base_model", "root", "shards", "settings")
CALLERS: dict[str, Any] = {"email": Email, "slack": Slack, "pagerduty": PagerDuty}

Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$")]
"""A label key or value that Kubernetes accepts."""


class NotifySettings(FrozenSettings):
    """Recipients of a notification about the end of a run."""

    to: list[Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+$")]] = Field(min_length=1, max_length=20)
    by: Literal["email", "slack", "pagerduty"] = Field(description="The latter two by their addresses for mail.")
    when: list[Literal["SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED"]] = Field(min_length=1, max_length=4)

    def notification(self) -> Notification:
        """Return flytekit's notification."""
        phases = [getattr(WorkflowExecutionPhase, phase) for phase in self.when]
        return CALLERS[self.by](phases=phases, recipients_email=self.to)


class ScheduleRow(FrozenSettings):
    """The retraining of one gesture."""

    gesture: Literal[tuple(PHRASES)]  # type: ignore[valid-type]
    active: bool = Field(description="Whether registration activates it, in place of an earlier version.")
    cron: str = Field(description="Five fields, UTC.")
    images: int = Field(ge=1, le=1_000_000)
    settings: Settings
    base_model: str = Field(min_length=1)
    data: str = Field(min_length=1)
    root: str = Field(pattern="^s3://[^/]+(/.*)?$")
    shards: int = Field(ge=1, le=1000)
    max_parallelism: int = Field(ge=1, le=1000)
    notify: list[NotifySettings] = Field(max_length=10)
    labels: dict[Label, Label] = Field(max_length=20)

    @field_validator("cron")
    @classmethod
    def _five_fields(cls, cron: str) -> str:
        # croniter takes seconds and years too, which Flyte's scheduler does not.
        if len(cron.split()) != 5 or not croniter.is_valid(cron):
            raise ValueError("five fields of cron: minute, hour, day, month, weekday")
        return cron

    @field_validator("max_parallelism")
    @classmethod
    def _within_the_quota(cls, count: int) -> int:
        table = resources_table()
        most = min(table.quota.holds(table.pod_of(tasks[0])) for tasks in table.tasks.values())
        if count > most:
            raise ValueError(f"the quota of tasks/resources.yaml holds {most} of the largest pods at once")
        return count

    def launch_plan(self) -> LaunchPlan:
        """Return the launch plan, which binds all inputs but the start time, an input from the scheduler."""
        inputs = {name: getattr(self, name) for name in INPUTS}
        return LaunchPlan.get_or_create(
            retrain,
            name=f"retrain_{self.gesture}",
            fixed_inputs=inputs,
            schedule=CronSchedule(schedule=self.cron, kickoff_time_input_arg="kickoff"),
            notifications=[recipients.notification() for recipients in self.notify],
            labels=Labels({**self.labels, "gesture": self.gesture}),
            max_parallelism=self.max_parallelism,
            auto_activate=self.active,
        )


class Schedules(FrozenSettings):
    """The file."""

    common: dict[str, Any] = Field(description="What rows share, by YAML's merge; the rows are complete.")
    rows: list[ScheduleRow] = Field(max_length=200)

    @model_validator(mode="after")
    def _gestures_are_distinct(self) -> Self:
        gestures = [row.gesture for row in self.rows]
        for gesture in gestures:
            if gestures.count(gesture) > 1:
                raise ValueError(f"rows: {gesture} is repeated")
        return self


def load_schedules(path: Path = FILE) -> Schedules:
    """Read the file.

    Raises:
        Hand1000Error: The file is not YAML, or a field of a row is missing, unknown or out of range.
    """
    return validate_settings(Schedules, read_yaml(path), path)


# pyflyte finds launch plans as attributes of a module.
globals().update({f"retrain_{row.gesture}": row.launch_plan() for row in load_schedules().rows})
