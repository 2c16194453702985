"""The base class and the bounded types of all settings, and their validation."""

from collections.abc import Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from hand1000.core.errors import Hand1000Error
from hand1000.core.text import describe_value, shorten, suggest

Fraction = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1, description="Random seed of the run.")]
Steps = Annotated[int, Field(ge=0, le=1_000_000)]
BatchSize = Annotated[int, Field(ge=1, le=4096)]
LearningRate = Annotated[float, Field(gt=0, le=1)]
CheckpointEvery = Annotated[int, Field(ge=1, le=100_000, description="Number of steps between two checkpoints.")]
PalmConfidence = Annotated[Fraction, Field(description="Minimum confidence of MediaPipe's palm detection.")]

_MAX_VALUE_LENGTH = 100
_MAX_MESSAGE = 600
_REMEDIES = {
    "extra_forbidden": "unknown field; correct its name or remove it",
    "missing": "missing; state it",
    "model_type": "fields are expected, each as NAME: VALUE",
}


class FrozenSettings(BaseModel):
    """Immutable settings that refuse unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _require_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse a truth value in the place of a number, which pydantic would read as 0 or 1."""
        field = cls.model_fields.get(info.field_name or "")
        if isinstance(value, bool) and field and _strip_annotation(field.annotation) in (int, float):
            raise ValueError("a number is expected; YAML reads yes, no, on and off as true and false")
        return value


ModelT = TypeVar("ModelT", bound=BaseModel)


def validate_settings(model: type[ModelT], values: Any, source: str | Path) -> ModelT:
    """Validate `values`, which come from `source`, as a `model`.

    Raises:
        Hand1000Error: A field is missing, unknown or out of range.
    """
    if values is None:
        raise Hand1000Error(f"{shorten(str(source), 300)}: empty; state its fields")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise Hand1000Error(format_validation_error(error, str(source), model)) from error


def format_validation_error(error: ValidationError, source: str, model: type[BaseModel] | None = None) -> str:
    """Describe the first fault that pydantic found in `source` as one line of bounded length that names the field.

    Args:
        error: The fault of a `model`.
        source: Name of what was validated.
        model: The class, from which an unknown field's nearest name is suggested.
    """
    faults = error.errors(include_url=False, include_context=False)
    # A slip in a name makes two faults, of which the unknown name is the one to correct.
    unknown = [fault for fault in faults if fault["type"] == "extra_forbidden"]
    first = unknown[0] if unknown and faults[0]["type"] == "missing" else faults[0]
    field = shorten(".".join(str(part) for part in first["loc"]) or "settings", 200)
    message = _REMEDIES.get(first["type"], first["msg"].removeprefix("Value error, "))
    if first["type"] == "extra_forbidden" and model is not None:
        *path, name = first["loc"]
        message += suggest(str(name), _accepted_fields(model, path))
    value = describe_value(first["input"])
    got = f" (got {value})" if len(value) <= _MAX_VALUE_LENGTH and first["type"] != "missing" else ""
    return f"{shorten(source, 300)}: {field}: {shorten(message, _MAX_MESSAGE)}{shorten(got, _MAX_VALUE_LENGTH * 2)}"


def _accepted_fields(model: Any, path: Sequence[int | str]) -> list[str]:
    """Return the names that the settings at `path` within a `model` accept."""
    annotation = model
    for part in path:
        annotation = _strip_annotation(annotation)
        fields = getattr(annotation, "model_fields", {})
        annotation = fields[part].annotation if part in fields else (get_args(annotation) or (None,))[-1]
    return list(getattr(_strip_annotation(annotation), "model_fields", {}))


def _strip_annotation(annotation: Any) -> Any:
    """Return a type without `Annotated` and without None."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, UnionType):
        annotation = next(choice for choice in get_args(annotation) if choice is not type(None))
    return annotation
