"""From a model's address to a folder that `Hand1000Pipeline.from_pretrained` reads."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from hand1000.core.errors import Hand1000Error, one_line, translate_write_errors
from hand1000.registry.connection import Tracking, connect
from hand1000.storage.digests import digest_json
from hand1000.storage.hub import fetch_model_folder
from hand1000.storage.scratch import process_scratch

if TYPE_CHECKING:
    from hand1000.pipelines.pipeline_hand1000 import Hand1000Pipeline

WEIGHTS = "weights"
DEFAULT_FOLDER = Path("artifacts")
_INDEX = "model_index.json"
_VERSION = re.compile(r"models:/([^/@]+)/([1-9][0-9]*)")
_ALIAS = re.compile(r"models:/([^/@]+)@([^/@]+)")


def load_pipeline(
    uri: str | Path, *, tracking: Tracking | None = None, cache: Path | None = None
) -> "Hand1000Pipeline":
    """Load the pipeline of a model, on the accelerator if there is one; see `load_model_folder` for the arguments.

    Raises:
        Hand1000Error: There is no model at `uri`, or its files are missing or broken.
    """
    folder = load_model_folder(str(uri), tracking=tracking, cache=cache)
    # The import takes seconds, so that it follows the check of the address.
    from hand1000.pipelines import pipeline_hand1000

    return pipeline_hand1000.load_pipeline(folder)


def load_model_folder(uri: str, *, tracking: Tracking | None = None, cache: Path | None = None) -> Path:
    """The local folder of a model, downloaded if need be.

    Args:
        uri: `models:/NAME/VERSION`, `models:/NAME@ALIAS`, a local folder, `s3://...` of a model folder, or
            `OWNER/NAME@REVISION` of the Hugging Face hub.
        tracking: the MLflow of a `models:` address; by default what `connect` finds from here.
        cache: keeps what was downloaded; by default `hand1000/models` in the user's cache folder. A registered
            version never changes and is downloaded once; any other address is downloaded each time.

    Raises:
        Hand1000Error: no such folder, model, version or alias, no MLflow, or no model at that place.
    """
    if uri.startswith("models:"):
        tracking = tracking or connect(DEFAULT_FOLDER, create=False)
        location = f"{_location(uri, tracking).rstrip('/')}/{WEIGHTS}"
        if urlsplit(location).scheme in ("", "file"):
            return _with_index(Path(unquote(urlsplit(location).path)), uri)
        key = digest_json([tracking.redacted_uri, location])[:32]
        return _downloaded(location, uri, tracking.uri, (cache or _user_cache()) / key)
    if "://" in uri:
        return _downloaded(uri, uri, None, None)
    if re.fullmatch(r"[\w.-]+/[\w.-]+@[\w.-]+", uri) and not Path(uri).exists():
        return _with_index(fetch_model_folder(uri), uri)
    return _with_index(Path(uri), uri)


def _location(uri: str, tracking: Tracking) -> str:
    """Where the files of a registered version lie."""
    from mlflow.exceptions import MlflowException

    client = tracking.client
    aliased = _ALIAS.fullmatch(uri)
    match = aliased or _VERSION.fullmatch(uri)
    if match is None:
        raise Hand1000Error(f"{uri}: write models:/NAME/VERSION or models:/NAME@ALIAS")
    name, which = match.groups()
    try:
        if aliased:
            which = client.get_model_version_by_alias(name, which).version
        return client.get_model_version_download_uri(name, which)
    except MlflowException as error:
        # A missing alias is an invalid parameter to MLflow, a missing name or version is a missing resource.
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND"):
            with tracking.readable_errors():
                raise
        raise Hand1000Error(f"{uri}: {_what_there_is(name, tracking)}") from error


def _what_there_is(name: str, tracking: Tracking) -> str:
    client = tracking.client
    with tracking.readable_errors():
        found = client.search_registered_models(f"name = '{name}'") if "'" not in name else []
        if not found:
            known = ", ".join(each.name for each in client.search_registered_models(max_results=20))
            return f"no such model at {tracking.redacted_uri}; it has: {known or 'none'}"
        versions = sorted(int(each.version) for each in client.search_model_versions(f"name = '{name}'"))
    return (
        f"no such version or alias; {name} has versions: {', '.join(map(str, versions)) or 'none'}; "
        f"aliases: {', '.join(sorted(found[0].aliases)) or 'none'}"
    )


def _downloaded(location: str, uri: str, tracking_uri: str | None, place: Path | None) -> Path:
    """Fetch `location` into `place`, complete or not at all; without a place, for as long as this process lives."""
    import mlflow.artifacts

    if place is not None and place.is_dir():
        return _with_index(place, uri)
    scratch = process_scratch(place.parent if place else None)
    try:
        with translate_write_errors(scratch):
            fetched = mlflow.artifacts.download_artifacts(location, dst_path=str(scratch), tracking_uri=tracking_uri)
    except Hand1000Error:
        raise
    except Exception as error:
        # MLflow passes on whatever its storage raised: botocore's, requests' and its own.
        raise Hand1000Error(f"{uri}: cannot be downloaded: {one_line(error)}") from error
    found = _with_index(Path(fetched), uri)
    if place is None:
        return found
    try:
        found.rename(place)
    except OSError:
        if not place.is_dir():  # Another process was faster.
            raise
    return place


def _with_index(folder: Path, uri: str) -> Path:
    """The folder itself, or `weights` within it when it is a logged model."""
    for candidate in (folder, folder / WEIGHTS):
        if (candidate / _INDEX).is_file():
            return candidate
    raise Hand1000Error(f"{uri}: no model there: {folder} has no {_INDEX}")


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hand1000" / "models"
