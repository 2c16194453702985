"""Settings of the workflow sweep: which settings its runs change."""

from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from hand1000.config.base import FrozenSettings, Seed
from hand1000.config.settings import Settings
from hand1000.core.errors import Hand1000Error
from hand1000.gestures import parse_gestures

Name = Annotated[str, Field(pattern="^[a-z][a-z0-9-]{0,39}$")]


class SweepPoint(FrozenSettings):
    """One run of a sweep."""

    label: str = Field(min_length=1, max_length=80, description="Label of the run in tables and plots.")
    images: int | None = Field(None, ge=1, le=1_000_000, description="Number of training images, if it differs.")
    changes: dict[str, Any] = Field({}, max_length=50, description="New values by dotted name: `stage2.lambda_: 0.5`.")


class Sweep(FrozenSettings):
    """Runs that differ in one thing."""

    title: str = Field(min_length=1, max_length=200, description="Title of the sweep in the report.")
    axis: str = Field("", max_length=80, description="Quantity that the labels give as numbers; '' if they are names.")
    gesture: str = Field("", max_length=1000, description="Gestures of these runs; '' takes those of the workflow.")
    base_model: str = Field("", max_length=1000, description="Base model of these runs; '' takes the workflow's.")
    points: list[SweepPoint] = Field(min_length=1, max_length=50)

    @field_validator("gesture")
    @classmethod
    def _gestures_are_known(cls, gesture: str) -> str:
        try:
            return gesture and ",".join(parse_gestures(gesture))
        except Hand1000Error as error:
            raise ValueError(str(error)) from error

    @model_validator(mode="after")
    def _labels_of_an_axis_are_numbers(self) -> Self:
        for point in self.points if self.axis else ():
            try:
                float(point.label)
            except ValueError:
                raise ValueError(f"axis: label {point.label!r} is no number; choose '' for names") from None
        return self


class SweepSettings(FrozenSettings):
    """The sweeps of one report, by name, and the settings that all their runs have in common."""

    common: Settings
    seeds: list[Seed] = Field(
        [],
        max_length=20,
        description="Training and drawing seeds with which every point is run on the same images; [] is that of "
        "`common` alone. Take them farther apart than the number of images that a run generates.",
    )
    sweeps: dict[Name, Sweep] = Field(min_length=1, max_length=50)

    @model_validator(mode="after")
    def _every_point_is_valid(self) -> Self:
        for name, sweep in self.sweeps.items():
            for point in sweep.points:
                try:
                    self.common.with_overrides(point.changes)
                except Hand1000Error as error:
                    raise ValueError(f"sweeps.{name}: {error}") from error
        return self

    @model_validator(mode="after")
    def _seeds_are_the_only_ones(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: one is repeated; name each once")
        for name, sweep in self.sweeps.items():
            if self.seeds and any("seed" in point.changes for point in sweep.points):
                raise ValueError(f"sweeps.{name}: a point changes the seed, which `seeds` does; leave out one of them")
        return self

    def runs_of(self, point: SweepPoint) -> list[Settings]:
        """Return the settings of a point's runs, one for each seed."""
        settings = self.common.with_overrides(point.changes)
        return [settings.model_copy(update={"seed": seed}) for seed in self.seeds] or [settings]
