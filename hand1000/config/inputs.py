"""Files of settings and of a workflow's inputs, as `hand1000 config` reads them."""

import datetime
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Generic, Self, TypeVar

from pydantic import AfterValidator, Field, model_validator

from hand1000.config.base import FrozenSettings, validate_settings
from hand1000.config.caption_settings import DatasetSettings
from hand1000.config.comparison import ComparisonSettings, parse_methods, parse_seeds
from hand1000.config.controlnet import ControlSettings
from hand1000.config.inheritance import list_presets
from hand1000.config.pretraining import PretrainSettings
from hand1000.config.settings import Settings, load_settings
from hand1000.config.sweep import SweepSettings
from hand1000.core.documents import read_yaml
from hand1000.core.errors import Hand1000Error
from hand1000.core.text import MAX_NAME
from hand1000.gestures import parse_gestures

SettingsT = TypeVar("SettingsT", bound=FrozenSettings)

_DISTINCTIVE_FIELDS: dict[str, type[FrozenSettings]] = {
    "sweeps": SweepSettings,
    "imagic": ComparisonSettings,
    "hand_refiner": ComparisonSettings,
    "captioners": DatasetSettings,
    "autoencoder": PretrainSettings,
    "schedule": ControlSettings,
}


def _check_text(parse: Callable[[str], object]) -> Callable[[str], str]:
    """Return a validator of the texts that `parse` accepts."""

    def check(text: str) -> str:
        try:
            parse(text)
        except Hand1000Error as error:
            raise ValueError(str(error)) from error
        return text

    return check


Gestures = Annotated[str, AfterValidator(_check_text(parse_gestures))]
Methods = Annotated[str, AfterValidator(_check_text(parse_methods))]
Text = Annotated[str, Field(min_length=1)]


class WorkflowInputs(FrozenSettings, Generic[SettingsT]):
    """The inputs file of a workflow; the command line gives what it leaves out."""

    kickoff: datetime.datetime | None = None
    gesture: Gestures | None = None
    gestures: Gestures | None = None
    methods: Methods | None = None
    seeds: Text | None = None
    images: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    data: Text | None = None
    base_model: Text | None = None
    root: Text | None = None
    shards: Annotated[int, Field(ge=1, le=1000)] | None = None
    settings: SettingsT

    @model_validator(mode="after")
    def _seeds_are_far_apart(self) -> Self:
        if isinstance(self.settings, ComparisonSettings) and self.seeds is not None:
            num_images = self.settings.common.generation.num_images
            _check_text(lambda text: parse_seeds(text, num_images))(self.seeds)
        return self

    @model_validator(mode="after")
    def _pretraining_takes_no_base_model(self) -> Self:
        if isinstance(self.settings, PretrainSettings) and self.base_model is not None:
            raise ValueError("base_model: pretraining makes a new model of Stable Diffusion 1.x; leave it out")
        return self


def load_config(source: str | Path) -> FrozenSettings:
    """Load a preset, a file of settings, or the inputs file of a workflow.

    Returns:
        `Settings`, the settings of another workflow, or `WorkflowInputs` of one of them.

    Raises:
        Hand1000Error: There is no such preset or file, or a field is missing, unknown or out of range.
    """
    if str(source) in list_presets() or not Path(source).is_file():
        return load_settings(source)
    values = read_yaml(source)
    if isinstance(values, Mapping) and "settings" in values:
        model: Any = WorkflowInputs[_settings_class(values["settings"])]  # type: ignore[misc]
        return validate_settings(model, values, source)
    return validate_settings(_settings_class(values), values, source)


def _settings_class(values: Any) -> type[FrozenSettings]:
    """Return the settings class of a mapping, identified by a field that only this class has."""
    fields = values if isinstance(values, Mapping) else {}
    for name, model in _DISTINCTIVE_FIELDS.items():
        if name in fields:
            return model
    own = Settings.model_fields.keys() | {"preset"}
    for field in map(str, fields):
        near = get_close_matches(field[:MAX_NAME], _DISTINCTIVE_FIELDS, 1, cutoff=0.7) if field not in own else []
        if near:  # A slip in the very field that identifies the class, which the error then names.
            return _DISTINCTIVE_FIELDS[near[0]]
    return Settings
