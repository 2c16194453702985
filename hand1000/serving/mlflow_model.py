"""The registered model for MLflow: requests from a DataFrame and parameters, errors as MLflow's own."""

import base64
import inspect
import os
import sys
from collections.abc import Mapping
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from hand1000.core.errors import Hand1000Error
from hand1000.serving.errors import InvalidRequestError, RequestTimeoutError, UnavailableError
from hand1000.serving.model import ServedModel, load_logged_model

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.exceptions import MlflowException

PROMPT, IMAGE = "prompt", "image"
"""Columns of the input and of the output."""

_TIMEOUT_VARIABLE = "MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT"
"""Seconds after which `mlflow models serve` answers 504, set by that command."""

_TIMEOUT_SHARE = 0.9
"""Share of that time after which our own answer says what to change, and the work has ended."""


class MlflowModel:
    """What the code beside the weights calls.

    Attributes:
        model: The model and its queue.
    """

    def __init__(self, model: ServedModel) -> None:
        self.model = model

    @classmethod
    def load(cls, folder: Path, config: Mapping[str, Any]) -> "MlflowModel":
        """Load a logged model; see `hand1000.serving.model.load_logged_model`."""
        _check_predict()
        return cls(load_logged_model(folder, config))

    def predict(self, model_input: "pd.DataFrame", params: Mapping[str, Any] | None = None) -> "pd.DataFrame":
        """Generate one image per row; row i has the seed `seed + i`, so requests are repeatable.

        Args:
            model_input: DataFrame with the column `prompt`.
            params: `gesture`, `seed`, and the fields of `hand1000.SamplerSettings` but `fuse_null_prompt`.

        Returns:
            DataFrame with the column `image`, one base64 PNG per row, and the index of `model_input`.

        Raises:
            MlflowException: INVALID_PARAMETER_VALUE names the column, row or parameter at fault (a server answers 400),
                TEMPORARILY_UNAVAILABLE a full queue (503), DEADLINE_EXCEEDED a request that took too long (504).
        """
        import pandas as pd

        columns, sent = _read_call()
        try:
            for column in columns or model_input.columns:
                if column != PROMPT:
                    raise InvalidRequestError(
                        f"{column}: unknown column; send the column {PROMPT}, and settings as params"
                    )
            # MLflow fills in the defaults; what the caller sent says more, such as which names are unknown.
            values = {name: _to_python(value) for name, value in {**(params or {}), **(sent or {})}.items()}
            specs = self.model.parser.parse_rows(list(model_input[PROMPT]), values)
            job = self.model.worker.submit(specs)
            limit = os.environ.get(_TIMEOUT_VARIABLE)
            timeout = _TIMEOUT_SHARE * float(limit) if limit else None
            try:
                job.future.result(timeout)
            except FutureTimeoutError:
                error = RequestTimeoutError(f"not finished within {timeout:g} seconds; send fewer images or steps")
                self.model.worker.cancel(job, error)
                raise error from None
            images = [base64.b64encode(data).decode("ascii") for data in self.model.encode_images(job)]
        except Hand1000Error as error:
            raise _to_mlflow_exception(error) from error
        return pd.DataFrame({IMAGE: images}, index=model_input.index)


def _to_python(value: Any) -> Any:
    """Return numpy's numbers and arrays, which a Python caller may send, as Python's."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return [_to_python(item) for item in value] if isinstance(value, list) else value


def _to_mlflow_exception(error: Hand1000Error) -> "MlflowException":
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import DEADLINE_EXCEEDED, INVALID_PARAMETER_VALUE, TEMPORARILY_UNAVAILABLE

    code = INVALID_PARAMETER_VALUE
    if isinstance(error, UnavailableError):
        code = TEMPORARILY_UNAVAILABLE
    elif isinstance(error, RequestTimeoutError):
        code = DEADLINE_EXCEEDED
    return MlflowException(str(error), error_code=code)


def _check_predict() -> None:
    """Raise a Hand1000Error if `_read_call` could not read the arguments of this version's `PyFuncModel.predict`."""
    from mlflow import __version__
    from mlflow.pyfunc import PyFuncModel

    if not {"data", "params"} <= set(inspect.unwrap(PyFuncModel.predict).__code__.co_varnames):
        raise Hand1000Error(
            f"MLflow {__version__}: PyFuncModel.predict has no arguments `data` and `params`, so that unknown columns "
            "and parameters could not be refused; install mlflow 3.17"
        )


def _read_call() -> tuple[list[str] | None, Mapping[str, Any] | None]:
    """Return the columns and parameters that the caller sent, each None if it cannot be seen.

    MLflow drops the columns and parameters that the signature does not name before it calls the model, with no more
    than a line in its own log: a request for `negative_prompt` or `steps` would be answered with an image that ignores
    it. MLflow has no option to refuse them (3.17), so this reads the arguments of `PyFuncModel.predict` from the stack.
    """
    from mlflow.pyfunc import PyFuncModel

    code = inspect.unwrap(PyFuncModel.predict).__code__
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    if frame is None:
        return None, None
    data, params = frame.f_locals.get("data"), frame.f_locals.get("params")
    return _column_names(data), params if isinstance(params, Mapping) else None


def _column_names(data: Any) -> list[str] | None:
    """Return the names of the columns of an input, None if it has none."""
    if hasattr(data, "columns"):
        return [str(name) for name in data.columns]
    if isinstance(data, Mapping):
        return [str(name) for name in data]
    if isinstance(data, list) and data and all(isinstance(row, Mapping) for row in data):
        return list(dict.fromkeys(str(name) for row in data for name in row))
    return None
