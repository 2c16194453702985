"""MLflow's exceptions as one line; those that may pass at another attempt are transient errors."""

from pathlib import Path
from typing import TYPE_CHECKING

from hand1000.core.errors import Hand1000Error, TransientError, one_line
from hand1000.registry.database import SQLITE, database_error

if TYPE_CHECKING:
    from mlflow.exceptions import MlflowException

_MAX_TEXT = 500
_SQLITE_FAULTS = ("is locked", "is full", "malformed", "readonly", "not a database", "disk I/O error", "unable to open")
_SERVER_FAULTS = ("failed with exception", "failed with timeout exception", "not in a valid JSON format")
_TRANSIENT_STATUS = (429, 499, 500, 502, 503, 504)


def foreign_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions of MLflow and of what it calls: its database, its server, and the store of its files."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import DBAPIError

    return (MlflowException, DBAPIError, RequestException, Boto3Error, BotoCoreError, ClientError)


def readable_error(error: Exception, uri: str, redacted_uri: str) -> Hand1000Error:
    """Return what a user reads in place of one of `foreign_errors`, without the password of `uri`.

    It is a `TransientError` if the server does not answer or is overloaded, or another program has locked the database.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import DBAPIError

    text = one_line(getattr(error, "orig", None) or error).replace(uri, redacted_uri)
    if uri.startswith(SQLITE) and any(fault in text for fault in _SQLITE_FAULTS):
        return database_error(Path(uri.removeprefix(SQLITE)), text)
    place = f"MLflow at {redacted_uri}: {text[:_MAX_TEXT]}"
    if isinstance(error, MlflowException):
        return TransientError(place) if _may_pass(error) else Hand1000Error(place)
    if isinstance(error, DBAPIError):
        if uri.startswith(SQLITE):
            return Hand1000Error(f"{place}; name a database of MLflow that you may write")
        return TransientError(place) if error.connection_invalidated else Hand1000Error(place)
    status = _response_status(error)
    if status is None or status in _TRANSIENT_STATUS:
        return TransientError(f"{place}; the store of its files does not answer")
    return Hand1000Error(f"{place}; the store of its files refuses")


def _may_pass(error: "MlflowException") -> bool:
    from mlflow.exceptions import RestException

    if isinstance(error, RestException) or error.error_code == "TEMPORARILY_UNAVAILABLE":
        return error.get_http_status_code() in _TRANSIENT_STATUS
    # MLflow also calls the faults of its own client internal errors; only the text says that there was a request.
    text = str(error)
    is_request = "API request to" in text
    return is_request and (any(fault in text for fault in _SERVER_FAULTS) or "failed with error code 5" in text)


def _response_status(error: Exception) -> int | None:
    """Return the HTTP status of requests' and botocore's exceptions, None where there was no response."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        status = getattr(response, "status_code", None)
    return status if isinstance(status, int) else None
