"""The scheduled retrainings: the rows of `workflows/schedules.yaml`."""

import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from hand1000.config.base import FrozenSettings, validate_settings
from hand1000.config.cron import parse_cron, require_yearly_run
from hand1000.config.settings import Settings
from hand1000.core.documents import read_yaml
from hand1000.core.errors import Hand1000Error
from hand1000.gestures import PHRASES

FILE = "workflows/schedules.yaml"
"""The file in the project's folder."""

_MAX_CRON_LENGTH = 200

Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$")]
"""A label key or value that Kubernetes accepts."""


class NotifySettings(FrozenSettings):
    """Recipients of a notification about the end of a run."""

    to: list[Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+$", max_length=320)]] = Field(min_length=1, max_length=20)
    by: Literal["email", "slack", "pagerduty"] = Field(description="The latter two by their addresses for mail.")
    when: list[Literal["SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED"]] = Field(min_length=1, max_length=4)


class ScheduleRow(FrozenSettings):
    """The retraining of one gesture."""

    gesture: Literal[tuple(PHRASES)]  # type: ignore[valid-type]
    active: bool = Field(description="Whether registration activates it, in place of an earlier version.")
    cron: str = Field(
        max_length=_MAX_CRON_LENGTH,
        description="Minute, hour, day of month, month, day of week (0 is Sunday), or @daily and the like; in UTC.",
    )
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
    def _is_run_by_the_scheduler(cls, cron: str) -> str:
        # The scheduler only logs what it cannot read, and flytekit refuses some of what the scheduler reads.
        require_yearly_run(parse_cron(cron))
        try:
            from croniter import croniter
        except ModuleNotFoundError as error:
            raise Hand1000Error(f"{error.name} is not installed; pip install 'hand1000[cluster]'") from error
        if not croniter.is_valid(cron):
            raise ValueError("flytekit does not read this; write plain numbers, N-M, */STEP and lists of them")
        return cron

    def next_runs(self, after: datetime.datetime, count: int) -> list[datetime.datetime]:
        """Return the times in UTC of the next `count` runs after a time."""
        return parse_cron(self.cron).next_runs(after, count)


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


def read_schedules(path: str | Path) -> Schedules:
    """Read the file.

    Raises:
        Hand1000Error: The file is not YAML, a field of a row is missing, unknown or out of range, or a schedule is one
            that Flyte's scheduler never runs.
    """
    return validate_settings(Schedules, read_yaml(path), path)
