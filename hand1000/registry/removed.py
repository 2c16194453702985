"""The removal of weights that nobody needs.

Of a logged model only the weights are removed. Its record, card and metrics, and every version that refers to it, stay
as history. The tag is set before the first byte goes, so that no version ever promises weights that are half there.
MLflow's own `mlflow gc --logged-model-ids` has no such order: it deletes the files under versions that stay registered.
"""

import contextlib
import datetime
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from hand1000.core.errors import Hand1000Error, one_line
from hand1000.registry.connection import Tracking
from hand1000.registry.library import LIBRARY
from hand1000.registry.load import WEIGHTS
from hand1000.registry.review_lock import review_lock
from hand1000.registry.versions import CANDIDATES, REMOVED

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.store.artifact.artifact_repo import ArtifactRepository


def measure_weights(tracking: Tracking, location: str) -> int:
    """Return the bytes of the weights of the logged model at `location`; 0 if they are gone.

    Raises:
        Hand1000Error: The files cannot be listed.
    """
    repository = open_repository(tracking, location)
    try:
        return sum(_file_sizes(repository, WEIGHTS))
    except Exception as error:
        # MLflow raises the errors of its storage: botocore's, requests' and its own.
        raise Hand1000Error(f"{location}: cannot be listed: {one_line(error)}") from error


def remove_weights(
    tracking: Tracking,
    model_id: str,
    location: str,
    versions: Sequence["ModelVersion"],
    is_needed: Callable[[], bool],
) -> bool:
    """Mark a logged model and its versions, then remove the weights; return False if they are needed after all.

    Safe to interrupt and to repeat.

    Args:
        tracking: Connection to MLflow.
        model_id: MLflow's id of the logged model.
        location: Address of its files.
        versions: All versions that refer to it.
        is_needed: Whether a version is in use or waits for a decision now.

    Raises:
        Hand1000Error: A reviewer is deciding, or MLflow or its storage refuses; the account needs MANAGE on the
            experiment.
    """
    if not _mark(tracking, model_id, versions, is_needed):
        return False
    with tracking.readable_errors():
        try:
            repository = open_repository(tracking, location)
            # The library is of no use without them. The weights go last, since a further call looks for them.
            for file in repository.list_artifacts():
                if file.path == LIBRARY:
                    repository.delete_artifacts(LIBRARY)
            repository.delete_artifacts(WEIGHTS)
        except Exception as error:
            raise Hand1000Error(
                f"{location}: not removed: {one_line(error)}; on a server with accounts, only the administrator may"
            ) from error
        if not versions:  # An upload that was never registered; nothing refers to its record.
            tracking.client.delete_logged_model(model_id)
    return True


def measure_files(tracking: Tracking, locations: Iterable[str], kept: Container[str]) -> int:
    """Return the bytes of the files of runs and logged models, but for those at the top whose names are in `kept`.

    Raises:
        Hand1000Error: MLflow or its storage refuses.
    """
    return sum(size for location in locations for _, size in _list_files(tracking, location, kept)[1])


def remove_files(tracking: Tracking, locations: Iterable[str], kept: Container[str]) -> None:
    """Remove the files of runs and logged models, but for those at the top whose names are in `kept`.

    Raises:
        Hand1000Error: MLflow or its storage refuses; on a server with accounts, only the administrator may.
    """
    for location in locations:
        repository, files = _list_files(tracking, location, kept)
        try:
            for path, _ in files:
                repository.delete_artifacts(path)
        except Exception as error:
            # MLflow raises the errors of its storage: botocore's, requests' and its own.
            raise Hand1000Error(
                f"{location}: not removed: {one_line(error)}; on a server with accounts, only the administrator may"
            ) from error


def _list_files(
    tracking: Tracking, location: str, kept: Container[str]
) -> "tuple[ArtifactRepository, list[tuple[str, int]]]":
    """Return the access to the files at `location`, and path and size of those at the top."""
    repository = open_repository(tracking, location)
    try:
        items = [item for item in repository.list_artifacts() if item.path not in kept]
        sizes = [sum(_file_sizes(repository, item.path)) if item.is_dir else item.file_size or 0 for item in items]
    except Exception as error:
        raise Hand1000Error(f"{location}: cannot be listed: {one_line(error)}") from error
    return repository, [(item.path, size) for item, size in zip(items, sizes, strict=True)]


def _mark(tracking: Tracking, model_id: str, versions: Sequence["ModelVersion"], is_needed: Callable[[], bool]) -> bool:
    """Tag a logged model and its versions, after which no reviewer can promote them; undo it if they are needed."""
    client = tracking.client
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    reviewed = sorted({version.name.removesuffix(CANDIDATES) for version in versions})
    if tracking.lock_file is not None:
        reviewed = reviewed[:1]  # An embedded MLflow has one lock for all of its models.
    with contextlib.ExitStack() as stack:
        locks = [stack.enter_context(review_lock(tracking, name, "hand1000 gc")) for name in reviewed]
        stack.enter_context(tracking.readable_errors())
        if is_needed():
            return False
        for lock in locks:
            lock.check()  # A large registry may be read for longer than a lock lasts.
        for version in versions:
            if REMOVED not in version.tags:
                client.set_model_version_tag(version.name, str(version.version), REMOVED, now)
        client.set_logged_model_tags(model_id, {REMOVED: now})
    return True


def open_repository(tracking: Tracking, location: str) -> "ArtifactRepository":
    """Return MLflow's access to the files of a run or of a logged model at `location`."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(location, tracking_uri=tracking.uri, registry_uri=tracking.uri)


def _file_sizes(repository: "ArtifactRepository", path: str) -> Iterator[int]:
    for item in repository.list_artifacts(path):
        if item.is_dir:
            yield from _file_sizes(repository, item.path)
        else:
            yield item.file_size or 0
