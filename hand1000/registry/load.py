"""Resolution of a model's address to a local folder or a pipeline."""

import logging
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from pydantic import ValidationError

from hand1000.config.base import format_validation_error
from hand1000.core.errors import Hand1000Error, one_line, translate_write_errors
from hand1000.registry.connection import Tracking, connect
from hand1000.registry.versions import MODEL_DIGEST, REMOVED, RegisteredVersion
from hand1000.storage.digests import DamagedError, Manifest, digest_json, tree_manifest
from hand1000.storage.files import read_json
from hand1000.storage.hub import fetch_model_folder
from hand1000.storage.scratch import process_scratch
from hand1000.storage.verification import is_intact

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from hand1000.pipelines.pipeline_hand1000 import Hand1000Pipeline

logger = logging.getLogger(__name__)

WEIGHTS = "weights"
"""Folder of the weights in a logged model."""

MANIFEST = "manifest.json"
"""File beside the weights that lists their names, sizes and sha256."""

_INDEX = "model_index.json"
_VERSION = re.compile(r"models:/([^/@]+)/([1-9][0-9]*)")
_ALIAS = re.compile(r"models:/([^/@]+)@([^/@]+)")


def load_pipeline(
    uri: str | Path, *, registry: str | Path | Tracking | None = None, cache: Path | None = None
) -> "Hand1000Pipeline":
    """Load the pipeline of a model, on the accelerator if there is one; see `load_model_folder` for the arguments.

    Raises:
        Hand1000Error: There is no model at `uri`, or its files are missing or damaged.
    """
    folder = load_model_folder(str(uri), registry=registry, cache=cache)
    # The import takes seconds, so that it follows the check of the address.
    from hand1000.pipelines import pipeline_hand1000

    return pipeline_hand1000.load_pipeline(folder)


def load_model_folder(uri: str, *, registry: str | Path | Tracking | None = None, cache: Path | None = None) -> Path:
    """Return the local folder of a model, downloaded if necessary; the weights of a registered one are verified.

    Args:
        uri: `models:/NAME/VERSION`, `models:/NAME@ALIAS`, a local folder, `s3://...` of a model folder, or
            `OWNER/NAME@REVISION` of the Hugging Face hub.
        registry: MLflow of a `models:` address, a connection or its address (see `connect`); by default that of
            `MLFLOW_TRACKING_URI`, else the one embedded in `artifacts`.
        cache: Folder of the downloaded versions, which never change; by default `hand1000/models` in the user's cache
            folder. Any other address is downloaded each time.

    Raises:
        Hand1000Error: No such folder, model, version or alias, no MLflow, no model at the address, or a damaged file.
    """
    if uri.startswith("models:"):
        tracking = registry if isinstance(registry, Tracking) else connect(registry=registry, create=False)
        return _load_version(uri, tracking, cache or _default_cache())
    if "://" in uri:
        return _with_index(_download(uri, uri, None, process_scratch(None)), uri)
    if re.fullmatch(r"[\w.-]+/[\w.-]+@[\w.-]+", uri) and not Path(uri).exists():
        return _with_index(fetch_model_folder(uri), uri)
    folder = _with_index(Path(uri), uri)
    if (folder.parent / MANIFEST).is_file():
        # A logged model, which MLflow has downloaded.
        verify_weights(folder)
    return folder


def verify_weights(folder: Path, digest: str | None = None) -> None:
    """Check every file of a registered model's weights, each only once in a process while it does not change.

    Args:
        folder: The weights; `manifest.json` is beside this folder, unless an earlier version of hand1000 registered it.
        digest: What the registry recorded for the weights, the tag `hand1000.model_digest`; None trusts the manifest.

    Raises:
        Hand1000Error: A file is missing, unknown or has other bytes; the message names it.
    """
    path = folder.parent / MANIFEST
    remedy = "restore it from a copy"
    if not path.is_file():
        if digest is not None and tree_manifest(folder).digest != digest:
            raise DamagedError(f"{folder}: its files are not those that were registered; {remedy}")
        return
    manifest = read_manifest(path)
    if digest is not None and manifest.digest != digest:
        raise DamagedError(f"{path}: not the manifest that was registered; {remedy}")
    names = {entry.name for entry in manifest.files}
    for file in sorted(folder.rglob("*")):
        if not file.is_dir() and file.relative_to(folder).as_posix() not in names:
            raise DamagedError(f"{file}: was not registered with this model; remove it")
    for entry in manifest.files:
        if not is_intact(folder, entry):
            raise DamagedError(f"{folder / entry.name}: its bytes are not those that were registered; {remedy}")


def read_manifest(path: Path) -> Manifest:
    """Read the manifest of a registered model's weights; a `DamagedError` where it is no manifest."""
    try:
        return Manifest.model_validate(read_json(path))
    except ValidationError as error:
        raise DamagedError(format_validation_error(error, str(path))) from error


def _default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hand1000" / "models"


def _load_version(uri: str, tracking: Tracking, cache: Path) -> Path:
    """Return the verified weights of a registered version."""
    location, digest = _resolve_version(uri, tracking)
    if urlsplit(location).scheme in ("", "file"):
        folder = _with_index(Path(unquote(urlsplit(location).path)) / WEIGHTS, uri)
        verify_weights(folder, digest)
        return folder
    target = cache / (digest or digest_json([tracking.redacted_uri, location]))[:32]
    if target.is_dir():
        try:
            folder = _with_index(target, uri)
            verify_weights(folder, digest)
            return folder
        except Hand1000Error as error:
            logger.warning("%s: downloaded again: %s", uri, error)
            shutil.rmtree(target, ignore_errors=True)
    downloaded = _download(location, uri, tracking.uri, process_scratch(cache))
    verify_weights(_with_index(downloaded, uri), digest)
    try:
        downloaded.rename(target)
    except OSError:
        if not target.is_dir():  # Another process was faster.
            raise
    return _with_index(target, uri)


def find_version(uri: str, *, registry: str | Path | Tracking | None = None) -> RegisteredVersion:
    """Return the version that a `models:` address names now; an alias may name another one later.

    Raises:
        Hand1000Error: Not such an address, no such model, version or alias, or no MLflow.
    """
    tracking = registry if isinstance(registry, Tracking) else connect(registry=registry, create=False)
    return RegisteredVersion.of(_find_version(uri, tracking))


def _resolve_version(uri: str, tracking: Tracking) -> tuple[str, str | None]:
    """Return the address of the files of a registered version, and the digest of its weights if it has one."""
    version = _find_version(uri, tracking)
    check_weights_kept(uri, version.tags)
    with tracking.readable_errors():
        location = tracking.client.get_model_version_download_uri(version.name, version.version)
    return location.rstrip("/"), version.tags.get(MODEL_DIGEST)


def check_weights_kept(uri: str, tags: Mapping[str, str]) -> None:
    """Raise a Hand1000Error if retention removed the weights of a version with these tags."""
    if REMOVED in tags:
        raise Hand1000Error(
            f"{uri}: its weights were removed by `hand1000 gc` on {tags[REMOVED][:10]}; choose another version, or run "
            "the training again"
        )


def _find_version(uri: str, tracking: Tracking) -> "ModelVersion":
    from mlflow.exceptions import MlflowException

    client = tracking.client
    aliased = _ALIAS.fullmatch(uri)
    match = aliased or _VERSION.fullmatch(uri)
    if match is None:
        raise Hand1000Error(f"{uri}: write models:/NAME/VERSION or models:/NAME@ALIAS")
    name, reference = match.groups()
    try:
        find = client.get_model_version_by_alias if aliased else client.get_model_version
        return find(name, reference)
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
            return (
                f"no such model at {tracking.redacted_uri}, which has: {names or 'none'}; "
                "name another MLflow with --registry"
            )
        versions = sorted(int(version.version) for version in client.search_model_versions(f"name = '{name}'"))
    return (
        f"no such version or alias; {name} has versions: {', '.join(map(str, versions)) or 'none'}; "
        f"aliases: {', '.join(sorted(models[0].aliases)) or 'none'}"
    )


def _download(location: str, uri: str, tracking_uri: str | None, scratch: Path) -> Path:
    """Download the folder at `location` into `scratch`."""
    import mlflow.artifacts

    try:
        with translate_write_errors(scratch):
            downloaded = mlflow.artifacts.download_artifacts(location, dst_path=str(scratch), tracking_uri=tracking_uri)
    except Hand1000Error:
        raise
    except Exception as error:
        # MLflow raises the errors of its storage: botocore's, requests' and its own.
        raise Hand1000Error(f"{uri}: cannot be downloaded: {one_line(error)}") from error
    return Path(downloaded)


def _with_index(folder: Path, uri: str) -> Path:
    """Return the folder itself, or its folder `weights` if it is a logged model."""
    for candidate in (folder, folder / WEIGHTS):
        if (candidate / _INDEX).is_file():
            return candidate
    remedy = "; restore its files, or name another version" if uri.startswith("models:") else ""
    raise Hand1000Error(f"{uri}: no model there: {folder} has no {_INDEX}{remedy}")
