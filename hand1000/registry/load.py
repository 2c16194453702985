"""Resolution of a model's address to a local folder or a pipeline."""

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
    """Return the local folder of a model, downloaded if necessary.

    Args:
        uri: `models:/NAME/VERSION`, `models:/NAME@ALIAS`, a local folder, `s3://...` of a model folder, or
            `OWNER/NAME@REVISION` of the Hugging Face hub.
        tracking: MLflow of a `models:` address; by default the server, or the one embedded in `artifacts`.
        cache: Folder of the downloaded versions, which never change; by default `hand1000/models` in the user's cache
            folder. Any other address is downloaded each time.

    Raises:
        Hand1000Error: No such folder, model, version or alias, no MLflow, or no model at the address.
    """
    if uri.startswith("models:"):
        tracking = tracking or connect(DEFAULT_FOLDER, create=False)
        location = f"{_resolve_version(uri, tracking).rstrip('/')}/{WEIGHTS}"
        if urlsplit(location).scheme in ("", "file"):
            return _with_index(Path(unquote(urlsplit(location).path)), uri)
        cache = cache or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hand1000" / "models"
        key = digest_json([tracking.redacted_uri, location])[:32]
        return _download(location, uri, tracking.uri, cache / key)
    if "://" in uri:
        return _download(uri, uri, None, None)
    if re.fullmatch(r"[\w.-]+/[\w.-]+@[\w.-]+", uri) and not Path(uri).exists():
        return _with_index(fetch_model_folder(uri), uri)
    return _with_index(Path(uri), uri)


def _resolve_version(uri: str, tracking: Tracking) -> str:
    """Return the address of the files of a registered version."""
    from mlflow.exceptions import MlflowException

    client = tracking.client
    aliased = _ALIAS.fullmatch(uri)
    match = aliased or _VERSION.fullmatch(uri)
    if match is None:
        raise Hand1000Error(f"{uri}: write models:/NAME/VERSION or models:/NAME@ALIAS")
    name, version = match.groups()
    try:
        if aliased:
            version = client.get_model_version_by_alias(name, version).version
        return client.get_model_version_download_uri(name, version)
    except MlflowException as error:
        # A missing alias is an invalid parameter to MLflow, a missing name or version is a missing resource.
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND"):
            with tracking.readable_errors():
                raise
        raise Hand1000Error(f"{uri}: {_describe_registry(name, tracking)}") from error


def _describe_registry(name: str, tracking: Tracking) -> str:
    client = tracking.client
    with tracking.readable_errors():
        models = client.search_registered_models(f"name = '{name}'") if "'" not in name else []
        if not models:
            names = ", ".join(model.name for model in client.search_registered_models(max_results=20))
            return f"no such model at {tracking.redacted_uri}; it has: {names or 'none'}"
        versions = sorted(int(version.version) for version in client.search_model_versions(f"name = '{name}'"))
    return (
        f"no such version or alias; {name} has versions: {', '.join(map(str, versions)) or 'none'}; "
        f"aliases: {', '.join(sorted(models[0].aliases)) or 'none'}"
    )


def _download(location: str, uri: str, tracking_uri: str | None, target: Path | None) -> Path:
    """Download `location` to `target` atomically, or without one to a folder that is removed with this process."""
    import mlflow.artifacts

    if target is not None and target.is_dir():
        return _with_index(target, uri)
    scratch = process_scratch(target.parent if target else None)
    try:
        with translate_write_errors(scratch):
            downloaded = mlflow.artifacts.download_artifacts(location, dst_path=str(scratch), tracking_uri=tracking_uri)
    except Hand1000Error:
        raise
    except Exception as error:
        # MLflow raises the errors of its storage: botocore's, requests' and its own.
        raise Hand1000Error(f"{uri}: cannot be downloaded: {one_line(error)}") from error
    folder = _with_index(Path(downloaded), uri)
    if target is None:
        return folder
    try:
        folder.rename(target)
    except OSError:
        if not target.is_dir():  # Another process was faster.
            raise
    return target


def _with_index(folder: Path, uri: str) -> Path:
    """Return the folder itself, or its folder `weights` if it is a logged model."""
    for candidate in (folder, folder / WEIGHTS):
        if (candidate / _INDEX).is_file():
            return candidate
    raise Hand1000Error(f"{uri}: no model there: {folder} has no {_INDEX}")
