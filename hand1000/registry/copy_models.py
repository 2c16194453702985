"""Copies of logged models and registered versions from one MLflow to another."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from hand1000.core.errors import Hand1000Error, one_line
from hand1000.registry.connection import Tracking, read_pages
from hand1000.registry.copy_runs import COPIED_FROM, Copy, CopyReport, copy_runs
from hand1000.registry.load import WEIGHTS, verify_weights
from hand1000.registry.versions import (
    DECISION,
    MODEL_DIGEST,
    MODEL_ID,
    MODEL_VERSIONS,
    REMOVED,
    RegisteredVersion,
    link_logged_model,
    log_model_output,
    source_address,
)

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel


def copy_registry(source: Tracking, target: Tracking) -> CopyReport:
    """Copy all runs and models of one MLflow to another; a second copy adds what is new since the first one.

    Runs keep names, times, parameters, metrics, tags, datasets and files; models keep weights, versions with their
    numbers, tags, aliases and decisions. Nothing at the target is changed or removed. An interrupted copy is completed
    by the next one. Every file is read back from the target and compared.

    Raises:
        Hand1000Error: Both are the same MLflow, the target has other models of the same names or other decisions, a
            file arrived damaged, or MLflow refused.
    """
    if source.uri == target.uri:
        raise Hand1000Error(f"{source.redacted_uri}: source and target are the same; name another target")
    copy = Copy(source, target)
    with target.lock(), _readable_errors(copy):
        copy_runs(copy)
        locations = {}
        for experiment, copied_experiment in copy.experiments.items():
            models = read_pages(source.client.search_logged_models, [experiment])
            present = {
                model.tags[COPIED_FROM]: model
                for model in read_pages(target.client.search_logged_models, [copied_experiment])
                if COPIED_FROM in model.tags
            }
            for model in models:
                copied = _copy_logged_model(copy, model, copied_experiment, present.get(model.model_id))
                if copied is not None:
                    locations[model.artifact_location] = copied
        for registered in read_pages(source.client.search_registered_models):
            _copy_registered_model(copy, registered, locations)
    return copy.report


@contextmanager
def _readable_errors(copy: Copy) -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        route = f"from {copy.source.redacted_uri} to {copy.target.redacted_uri}"
        raise Hand1000Error(f"copy {route}: {one_line(error)}; run it again to complete it") from error


def _copy_logged_model(
    copy: Copy, model: "LoggedModel", experiment: str, present: "LoggedModel | None"
) -> "LoggedModel | None":
    """Copy the files of a logged model and its metrics; return None for one that was never finished."""
    from mlflow.entities import LoggedModelStatus, Metric

    client = copy.target.client
    if model.status != LoggedModelStatus.READY:
        return None
    if present is None:
        tags = {name: value for name, value in model.tags.items() if name != MODEL_VERSIONS}
        run_id = copy.run_ids.get(model.source_run_id)
        present = client.create_logged_model(
            experiment, model.name, run_id, {**tags, COPIED_FROM: model.model_id}, model.params, model.model_type
        )
    if present.status != LoggedModelStatus.READY:
        _copy_model_files(copy, model, present)
        client.finalize_logged_model(present.model_id, LoggedModelStatus.READY)
        copy.report.models += 1
    recorded = {(metric.key, metric.run_id) for metric in present.metrics or ()}
    for metric in model.metrics or ():
        run_id = copy.run_ids.get(metric.run_id)
        if run_id and (metric.key, run_id) not in recorded:
            point = (metric.key, metric.value, metric.timestamp, metric.step)
            dataset = (metric.dataset_name, metric.dataset_digest)
            client.log_batch(run_id, metrics=[Metric(*point, present.model_id, *dataset, run_id)])
    run_id = copy.run_ids.get(model.source_run_id)
    if run_id:
        log_model_output(copy.target, run_id, present.model_id)
    return present


def _copy_model_files(copy: Copy, model: "LoggedModel", present: "LoggedModel") -> None:
    import mlflow.artifacts
    from mlflow.models import Model

    download = mlflow.artifacts.download_artifacts
    digest = model.tags.get(MODEL_DIGEST)
    with TemporaryDirectory() as scratch:
        for name in ("source", "target"):
            (Path(scratch) / name).mkdir()
        # A copy, because the description of the model is adapted below.
        folder = Path(download(model.artifact_location, dst_path=f"{scratch}/source", tracking_uri=copy.source.uri))
        # Of a model whose weights retention removed, the rest is copied.
        has_weights = REMOVED not in model.tags
        if has_weights:
            verify_weights(folder / WEIGHTS, digest)
        description = Model.load(str(folder))
        description.run_id = present.source_run_id
        description.model_id = description.model_uuid = present.model_id
        description.artifact_path = present.artifact_location
        description.save(str(folder / "MLmodel"))
        copy.target.client.log_model_artifacts(present.model_id, str(folder))
        arrived = Path(download(present.artifact_location, dst_path=f"{scratch}/target", tracking_uri=copy.target.uri))
        if has_weights:
            verify_weights(arrived / WEIGHTS, digest)


def _copy_registered_model(copy: Copy, registered: "RegisteredModel", locations: dict[str, "LoggedModel"]) -> None:
    from mlflow.exceptions import MlflowException

    target, name = copy.target.client, registered.name
    try:
        present = target.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        present = target.create_registered_model(name, description=registered.description)
    _check_decisions(copy, registered, present)
    _copy_versions(copy, name, locations)
    for key, value in registered.tags.items():
        if key not in present.tags:
            target.set_registered_model_tag(name, key, value)
            copy.report.tags += 1
    # An alias of the target stays, unless the source's reviewers decided since the last copy.
    is_newer = _decisions(present) < _decisions(registered)
    for alias, number in registered.aliases.items():
        if alias not in present.aliases or (is_newer and str(present.aliases[alias]) != str(number)):
            target.set_registered_model_alias(name, alias, str(number))
            copy.report.aliases += 1


def _copy_versions(copy: Copy, name: str, locations: dict[str, "LoggedModel"]) -> None:
    present = {int(version.version): version for version in _versions(copy.target, name)}
    for version in sorted(_versions(copy.source, name), key=lambda version: int(version.version)):
        number = int(version.version)
        if number not in present:
            location = copy.source.client.get_model_version_download_uri(name, version.version)
            if location not in locations:
                raise Hand1000Error(
                    f"models:/{name}/{number}: its files are no finished logged model; delete this version"
                )
            _create_version(copy, version, locations[location])
        elif present[number].tags.get(MODEL_DIGEST) != version.tags.get(MODEL_DIGEST):
            raise Hand1000Error(
                f"models:/{name}/{number}: {copy.target.redacted_uri} has other weights under this address; "
                "copy to an MLflow without models of these names"
            )


def _create_version(copy: Copy, version: "ModelVersion", logged: "LoggedModel") -> None:
    """Create the version with the same number at the target."""
    client, name = copy.target.client, version.name
    source = source_address(copy.target, logged)
    tags = {**version.tags, MODEL_ID: logged.model_id}
    run_id = copy.run_ids.get(version.run_id)
    while True:
        created = client.create_model_version(
            name, source, run_id, tags, description=version.description, model_id=logged.model_id
        )
        if int(created.version) == int(version.version):
            break
        # A number that was deleted at the source is used up at the target, too.
        client.delete_model_version(name, created.version)
        if int(created.version) > int(version.version):
            raise Hand1000Error(
                f"models:/{name}/{version.version}: {copy.target.redacted_uri} has used up this number; "
                "copy to an MLflow without models of these names"
            )
    copy.report.versions += 1
    link_logged_model(copy.target, RegisteredVersion.of(created))


def _versions(tracking: Tracking, name: str) -> list["ModelVersion"]:
    return list(read_pages(tracking.client.search_model_versions, f"name = '{name}'"))


def _decisions(model: "RegisteredModel") -> set[str]:
    return {key for key in model.tags if key.startswith(DECISION)}


def _check_decisions(copy: Copy, registered: "RegisteredModel", present: "RegisteredModel") -> None:
    """Refuse to merge two histories."""
    for key in _decisions(registered) & _decisions(present):
        if json.loads(registered.tags[key]) != json.loads(present.tags[key]):
            raise Hand1000Error(
                f"{registered.name}: {copy.target.redacted_uri} has another decision {key.removeprefix(DECISION)}; "
                "decide in one of the two only"
            )
