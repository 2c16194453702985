"""Registration of a model in MLflow, once however often the task runs."""

import json
import warnings
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from hand1000.config.sampler import CALL_FIELDS
from hand1000.config.serving import ServingLimits
from hand1000.core.errors import Hand1000Error
from hand1000.export.measured import EXPORT_METRICS, ExportMetrics
from hand1000.gestures import gesture_phrase
from hand1000.registry.library import LIBRARY, pack_library
from hand1000.registry.load import MANIFEST, WEIGHTS
from hand1000.registry.review_state import state_of
from hand1000.registry.run import Run
from hand1000.registry.versions import (
    GESTURE,
    METRIC,
    MODEL_DIGEST,
    MODEL_ID,
    REMOVED,
    RUN_KEY,
    RegisteredVersion,
    candidate_name,
    create_model_if_missing,
    link_logged_model,
    log_model_output,
    source_address,
)
from hand1000.storage.digests import Manifest, tree_manifest
from hand1000.storage.files import write_json
from hand1000.storage.scratch import temporary_folder

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import ModelSignature

_EXAMPLE = "a photo of a left hand in front of a blue wall, {}"
_MODEL_CODE = Path(__file__).with_name("model_code.py")
# Postgres refuses a longer text.
_MAX_DESCRIPTION = 5000
_REQUIRED = (
    "mlflow", "torch", "diffusers", "transformers", "safetensors", "numpy", "pandas", "pillow", "pydantic", "pyyaml",
    "filelock",
)  # fmt: skip
"""Packages that generation needs. `hand1000` itself, which no index has, is uploaded beside the weights."""


def register_candidate(
    run: Run,
    model_dir: Path,
    *,
    gestures: Sequence[str],
    metrics: Mapping[str, float | None],
    card: str,
    export: ExportMetrics | None = None,
    tags: Mapping[str, str] | None = None,
) -> RegisteredVersion:
    """Upload the weights once and register them as a new version, unless these weights are registered already.

    The tag `hand1000.model_digest` identifies the weights: it is the digest of their manifest, which is uploaded beside
    them.

    Args:
        run: The run that the version links to.
        model_dir: Folder that `Hand1000Pipeline.save_pretrained` wrote.
        gestures: HaGRID's names of the model's gestures.
        metrics: Values for tags of the version with the prefix `METRIC`; None is omitted.
        card: Model card in Markdown, for the description and for `README.md` beside the weights.
        export: What an export of the model loses, for `export.json` beside the weights.
        tags: Further tags, which an existing version also gets while no reviewer has decided about it.

    Raises:
        Hand1000Error: Not a model folder, or MLflow refused.
    """
    name = candidate_name(gestures)
    _generation_defaults(model_dir)
    manifest = tree_manifest(model_dir)
    tracking = run.tracking
    # Two processes that search at the same time would both find nothing and register twice.
    with tracking.lock(), tracking.readable_errors():
        same_weights = f"name = '{name}' AND tags.`{MODEL_DIGEST}` = '{manifest.digest}'"
        versions = tracking.client.search_model_versions(same_weights)
        # One whose weights retention removed stays as history.
        complete = [version for version in versions if REMOVED not in version.tags]
        version = min(complete, key=lambda version: int(version.version), default=None)
        if version is None:
            logged = _get_or_create_logged_model(run, name, manifest.digest)
            _upload(run, logged, model_dir, manifest, _documents(card, export), gestures[0])
            all_tags = {
                **(tags or {}),
                MODEL_DIGEST: manifest.digest,
                MODEL_ID: logged.model_id,
                RUN_KEY: run.run_key,
                GESTURE: ",".join(gestures),
                **{f"{METRIC}{key}": f"{value:.6g}" for key, value in metrics.items() if value is not None},
            }
            created = _create_version(run, name, logged, all_tags, card)
            # A server has no lock: of two processes that both found nothing, the second withdraws its version.
            versions = tracking.client.search_model_versions(same_weights)
            complete = [version for version in versions if REMOVED not in version.tags]
            version = min([created, *complete], key=lambda version: int(version.version))
            if version.version != created.version:
                tracking.client.delete_model_version(name, created.version)
                if version.tags[MODEL_ID] != logged.model_id:
                    tracking.client.delete_logged_model(logged.model_id)
        elif state_of(tracking, f"models:/{name}/{version.version}") == "pending":
            # Once it is decided, its tags stay as the reviewer saw them.
            for key, value in (tags or {}).items():
                tracking.client.set_model_version_tag(name, version.version, key, value)
            version = tracking.client.get_model_version(name, version.version)
        registered = RegisteredVersion.of(version)
        if registered.model_id:
            log_model_output(tracking, run.run_id, registered.model_id)
    link_logged_model(tracking, registered)
    return registered


def _get_or_create_logged_model(run: Run, name: str, model_digest: str) -> "LoggedModel":
    """Return the logged model that an interrupted attempt created, else a new one."""
    client, experiment = run.tracking.client, run.experiment_id
    same_weights = client.search_logged_models([experiment], f"tags.`{MODEL_DIGEST}` = '{model_digest}'")
    models = [model for model in same_weights if REMOVED not in model.tags]
    tags = {MODEL_DIGEST: model_digest, RUN_KEY: run.run_key}
    return models[0] if models else client.create_logged_model(experiment, name, run.run_id, tags)


def _documents(card: str, export: ExportMetrics | None) -> dict[str, str]:
    """The texts beside the weights by file name."""
    return {"README.md": card} | ({EXPORT_METRICS: export.model_dump_json(indent=1)} if export else {})


def _upload(
    run: Run, logged: "LoggedModel", model_dir: Path, manifest: Manifest, documents: Mapping[str, str], gesture: str
) -> None:
    """Upload weights, manifest, code, signature and documents to the logged model's own prefix, and declare it ready.

    `mlflow.pyfunc.log_model` would need a global tracking URI and copy the weights once more into its own folder.
    """
    import mlflow.pyfunc
    import pandas as pd
    from mlflow.entities import LoggedModelStatus
    from mlflow.models import Model

    client = run.tracking.client
    if logged.status != LoggedModelStatus.READY:
        client.log_model_artifacts(logged.model_id, str(model_dir), WEIGHTS)
        with temporary_folder(run.tracking.scratch_parent) as scratch:
            folder = scratch / "model"
            with warnings.catch_warnings():
                # A warning asks for type hints of `predict`.
                warnings.simplefilter("ignore", UserWarning)
                mlflow.pyfunc.save_model(
                    str(folder),
                    python_model=str(_MODEL_CODE),
                    # MLflow lets a server override only what is here. Its own option limits the time.
                    model_config={"weights_dir": WEIGHTS, **ServingLimits().model_dump(exclude={"timeout_seconds"})},
                    signature=_signature(_generation_defaults(model_dir)),
                    # With a signature MLflow does not run the example, for which there are no weights yet.
                    input_example=(pd.DataFrame({"prompt": [_EXAMPLE.format(gesture_phrase(gesture))]}), {"seed": 0}),
                    pip_requirements=_requirements(),
                    mlflow_model=Model(
                        logged.artifact_location, run.run_id, model_uuid=logged.model_id, model_id=logged.model_id
                    ),
                )
            pack_library(folder / LIBRARY)
            for name, text in documents.items():
                (folder / name).write_text(text)
            write_json(folder / MANIFEST, manifest)
            client.log_model_artifacts(logged.model_id, str(folder))
        client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)


def _create_version(run: Run, name: str, logged: "LoggedModel", tags: dict[str, str], card: str) -> "ModelVersion":
    client = run.tracking.client
    create_model_if_missing(run.tracking, name)
    source = source_address(run.tracking, logged)
    if len(card) > _MAX_DESCRIPTION:
        card = f"{card[: _MAX_DESCRIPTION - 40]}\n\n(cut; see README.md)"
    return client.create_model_version(name, source, run.run_id, tags, description=card, model_id=logged.model_id)


def _generation_defaults(model_dir: Path) -> dict:
    index = model_dir / "model_index.json"
    if not index.is_file():
        raise Hand1000Error(f"{model_dir}: not a model folder: it has no model_index.json")
    # Models of before the setting `sampler` sample with DDIM.
    config = {"sampler": "ddim"} | json.loads(index.read_text())
    try:
        return {name: config[name] for name in CALL_FIELDS}
    except KeyError as error:
        raise Hand1000Error(f"{index}: states no {error}; save the model with Hand1000Pipeline") from None


def _signature(defaults: dict[str, str | float | list[float]]) -> "ModelSignature":
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    params = [ParamSpec("gesture", "string", ""), ParamSpec("seed", "long", 0)]
    for name, value in defaults.items():
        kind = {"num_inference_steps": "long", "sampler": "string"}.get(name, "double")
        shape = (-1,) if isinstance(value, list) else None
        params.append(ParamSpec(name, kind, list(map(float, value)) if isinstance(value, list) else value, shape))
    prompts, images = Schema([ColSpec("string", "prompt")]), Schema([ColSpec("string", "image")])
    return ModelSignature(prompts, images, ParamSchema(params))


def _requirements() -> list[str]:
    """Return the installed versions without a build's local suffix, which no package index has."""
    requirements = []
    for package in _REQUIRED:
        try:
            requirements.append(f"{package}=={metadata.version(package).partition('+')[0]}")
        except metadata.PackageNotFoundError:
            requirements.append(package)
    return requirements
