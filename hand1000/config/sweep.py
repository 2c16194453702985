"""What a sweep may be told: which settings it changes to what. Complete and bounded, as `settings` is."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from hand1000.config.base import FrozenSettings, format_validation_error
from hand1000.config.settings import Settings
from hand1000.core.errors import Hand1000Error

Name = Annotated[str, Field(pattern="^[a-z][a-z0-9-]{0,39}$")]


class Point(FrozenSettings):
    """One run of a sweep."""

    label: str = Field(min_length=1, max_length=80)
    images: int | None = Field(ge=1, le=1_000_000, description="Training images, where they differ from the others'.")
    changes: dict[str, Any] = Field(
        max_length=50, description="Settings by their names with dots, such as `stage2.lambda_: 0.5`."
    )


class Sweep(FrozenSettings):
    """Runs that differ in one thing."""

    title: str = Field(min_length=1, max_length=200)
    axis: str = Field(max_length=80, description="What the labels, numbers then, count; '' if they are names.")
    points: list[Point] = Field(min_length=1, max_length=50)

    @model_validator(mode="after")
    def _counts_in_numbers(self) -> Self:
        for point in self.points if self.axis else ():
            try:
                float(point.label)
            except ValueError:
                raise ValueError(f"axis: label {point.label!r} is no number; choose '' for names") from None
        return self


class SweepSettings(FrozenSettings):
    """The sweeps of one report, by their names, and the settings that all their runs have in common."""

    common: Settings
    sweeps: dict[Name, Sweep] = Field(min_length=1, max_length=50)

    @model_validator(mode="after")
    def _every_point_is_possible(self) -> Self:
        for name, sweep in self.sweeps.items():
            for point in sweep.points:
                try:
                    with_overrides(self.common, point.changes)
                except Hand1000Error as error:
                    raise ValueError(f"sweeps.{name}: {error}") from error
        return self


def with_overrides(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """`settings` with other values, each named with dots from the top.

    Raises:
        Hand1000Error: a name that the settings have not, or a value out of its bounds.
    """
    values = settings.model_dump()
    for name, value in changes.items():
        *path, last = name.split(".")
        section: Any = values
        for part in path:
            section = section.get(part) if isinstance(section, dict) else None
        if not isinstance(section, dict) or last not in section:
            raise Hand1000Error(f"{name}: no such setting; `hand1000 config show default` lists them")
        section[last] = value
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise Hand1000Error(format_validation_error(error, ", ".join(changes))) from error
