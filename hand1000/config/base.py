"""The base class, the bounded types and the file reader of all settings."""

from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hand1000.core.errors import Hand1000Error, one_line

Fraction = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1, description="Random seed of the run.")]
Steps = Annotated[int, Field(ge=0, le=1_000_000)]
BatchSize = Annotated[int, Field(ge=1, le=4096)]
LearningRate = Annotated[float, Field(gt=0, le=1)]
CheckpointEvery = Annotated[int, Field(ge=1, le=100_000, description="Number of steps between two checkpoints.")]
PalmConfidence = Annotated[Fraction, Field(description="Minimum confidence of MediaPipe's palm detection.")]

_MAX_VALUE_LENGTH = 100
_REMEDIES = {
    "extra_forbidden": "unknown field; correct its name or remove it",
    "missing": "missing; state it",
}


class FrozenSettings(BaseModel):
    """Immutable settings that refuse unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


ModelT = TypeVar("ModelT", bound=BaseModel)


def read_yaml(path: str | Path) -> Any:
    """Read a YAML file.

    Raises:
        Hand1000Error: The file cannot be read, or is not YAML.
    """
    try:
        return yaml.safe_load(Path(path).read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise Hand1000Error(f"{path}: cannot be read: {one_line(error)}") from error
    except yaml.YAMLError as error:
        raise Hand1000Error(f"{path}: not YAML: {one_line(error)}") from error


def validate_settings(model: type[ModelT], values: Any, source: str | Path) -> ModelT:
    """Validate `values`, which come from `source`, as a `model`.

    Raises:
        Hand1000Error: A field is missing, unknown or out of range.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise Hand1000Error(format_validation_error(error, str(source))) from error


def format_validation_error(error: ValidationError, source: str) -> str:
    """Describe the first fault that pydantic found in `source` as one line that names the field."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"]) or "settings"
    message = _REMEDIES.get(first["type"], first["msg"].removeprefix("Value error, "))
    value = repr(first["input"])
    return f"{source}: {field}: {message}" + (f" (got {value})" if len(value) <= _MAX_VALUE_LENGTH else "")
