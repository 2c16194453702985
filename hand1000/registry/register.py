"""The model in MLflow's registry, once however often the task runs.

The pipeline writes `hand1000-<gestures>-candidates` only. `hand1000-<gestures>` is left to a reviewer, who copies a
version there: the two names let MLflow's permissions keep the two duties apart.
"""

import json
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from hand1000.core.errors import Hand1000Error
from hand1000.gestures import slug
from hand1000.registry.connection import Tracking
from hand1000.registry.load import WEIGHTS
from hand1000.registry.tracking import RUN_KEY, Run
from hand1000.storage.digests import tree_manifest

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import ModelSignature

MODEL_DIGEST = "hand1000.model_digest"
METRIC = "metric."
"""What the tags of measures begin with."""

_MODEL_CODE = Path(__file__).with_name("model_code.py")
# A database with typed columns, such as Postgres, refuses more.
_DESCRIPTION_LENGTH = 5000
_REQUIRED = ("hand1000", "mlflow", "torch", "diffusers", "transformers", "pandas", "pillow")


@dataclass(frozen=True)
class RegisteredVersion:
    """A version in the registry; `uri` is `models:/<name>/<version>`."""

    name: str
    version: int
    uri: str


def candidate_name(gestures: Sequence[str]) -> str:
    """The registered model that the pipeline adds versions to, such as `hand1000-call-four-candidates`."""
    return f"hand1000-{slug(gestures)}-candidates"


def register_candidate(
    run: Run,
    model_dir: Path,
    *,
    gestures: Sequence[str],
    metrics: Mapping[str, float | None],
    card: str,
    tags: Mapping[str, str] | None = None,
) -> RegisteredVersion:
    """Upload the weights once and register them as a new version, unless these weights are registered already.

    Weights are known by the sha256 of their folder's content, the tag `hand1000.model_digest`.

    Args:
        run: of the stage that registers; the version links to it.
        model_dir: what `Hand1000Pipeline.save_pretrained` wrote.
        gestures: HaGRID's names of what it draws.
        metrics: become the version's tags, `METRIC` before the name; None is left out.
        card: the model card in Markdown; the description, and whole as `README.md` beside the weights.
        tags: further tags of the version, also of one that is there already.

    Raises:
        Hand1000Error: not a model folder, or MLflow refused.
    """
    name = candidate_name(gestures)
    defaults = _generation_defaults(model_dir)
    model_digest = tree_manifest(model_dir).digest
    tracking = run.tracking
    # One at a time, where processes can be held off: two that look at once would both find nothing.
    with tracking.exclusive(), tracking.readable_errors():
        known = _version_of(tracking, name, model_digest)
        if known is None:
            logged = _get_or_create_logged_model(run, name, model_digest)
            _upload(run, logged, model_dir, card, defaults)
            all_tags = {
                MODEL_DIGEST: model_digest,
                RUN_KEY: run.run_key,
                "hand1000.gesture": ",".join(gestures),
                **{f"{METRIC}{key}": f"{value:.6g}" for key, value in metrics.items() if value is not None},
                **(tags or {}),
            }
            known = _create_version(run, name, logged, all_tags, card)
        else:
            for key, value in (tags or {}).items():
                tracking.client.set_model_version_tag(name, known.version, key, value)
    return RegisteredVersion(name, int(known.version), f"models:/{name}/{known.version}")


def _version_of(tracking: Tracking, name: str, model_digest: str) -> "ModelVersion | None":
    found = tracking.client.search_model_versions(f"name = '{name}' AND tags.`{MODEL_DIGEST}` = '{model_digest}'")
    return min(found, key=lambda each: int(each.version), default=None)


def _get_or_create_logged_model(run: Run, name: str, model_digest: str) -> "LoggedModel":
    """The logged model that an interrupted attempt began, else a new one."""
    client = run.tracking.client
    found = client.search_logged_models([run.experiment_id], f"tags.`{MODEL_DIGEST}` = '{model_digest}'", max_results=1)
    if found:
        return found[0]
    return client.create_logged_model(
        run.experiment_id, name=name, source_run_id=run.run_id, tags={MODEL_DIGEST: model_digest, RUN_KEY: run.run_key}
    )


def _upload(run: Run, logged: "LoggedModel", model_dir: Path, card: str, defaults: dict) -> None:
    """Put weights, code, signature and card under the logged model's own prefix, and declare it ready.

    The client is called step by step instead of `mlflow.pyfunc.log_model`, which needs a global tracking URI and
    would copy the weights once more into a folder of its own.
    """
    import mlflow.pyfunc
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus
    from mlflow.models import Model

    client = run.tracking.client
    if logged.status != LoggedModelStatus.READY:
        client.log_model_artifacts(logged.model_id, str(model_dir), WEIGHTS)
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "model"
            with warnings.catch_warnings():
                # It asks for an input example, which it would run before the weights are there.
                warnings.simplefilter("ignore", UserWarning)
                mlflow.pyfunc.save_model(
                    str(folder),
                    python_model=str(_MODEL_CODE),
                    model_config={"weights_dir": WEIGHTS},
                    signature=_signature(defaults),
                    pip_requirements=_requirements(),
                    mlflow_model=Model(
                        artifact_path=logged.artifact_location,
                        model_uuid=logged.model_id,
                        run_id=run.run_id,
                        model_id=logged.model_id,
                    ),
                )
            (folder / "README.md").write_text(card)
            client.log_model_artifacts(logged.model_id, str(folder))
        client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    # MLflow's database refuses an output that the run has already.
    outputs = client.get_run(run.run_id).outputs
    if logged.model_id not in {output.model_id for output in (outputs.model_outputs if outputs else [])}:
        client.log_outputs(run.run_id, [LoggedModelOutput(logged.model_id, step=0)])


def _create_version(run: Run, name: str, logged: "LoggedModel", tags: dict[str, str], card: str) -> "ModelVersion":
    from mlflow.exceptions import MlflowException

    client = run.tracking.client
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    # Given `models:/<id>`, MLflow's embedded store would look the model up at the process's global URI, not at ours.
    embedded = run.tracking.lock_file is not None
    source = logged.artifact_location if embedded else f"models:/{logged.model_id}"
    description = (
        card if len(card) <= _DESCRIPTION_LENGTH else f"{card[: _DESCRIPTION_LENGTH - 40]}\n\n(cut; see README.md)"
    )
    return client.create_model_version(
        name, source, run_id=run.run_id, tags=tags, description=description, model_id=logged.model_id
    )


def _generation_defaults(model_dir: Path) -> dict:
    index = model_dir / "model_index.json"
    if not index.is_file():
        raise Hand1000Error(f"{model_dir}: not a model folder: it has no model_index.json")
    config = json.loads(index.read_text())
    try:
        return {
            key: config[key] for key in ("mu", "guidance_scale", "autoguidance_scale", "eta", "num_inference_steps")
        }
    except KeyError as error:
        raise Hand1000Error(f"{index}: states no {error}; save the model with Hand1000Pipeline") from None


def _signature(defaults: dict) -> "ModelSignature":
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    return ModelSignature(
        inputs=Schema([ColSpec("string", "prompt")]),
        outputs=Schema([ColSpec("string", "image")]),
        params=ParamSchema(
            [
                ParamSpec("gesture", "string", ""),
                ParamSpec("seed", "long", 0),
                ParamSpec("mu", "double", float(defaults["mu"])),
                ParamSpec("guidance_scale", "double", float(defaults["guidance_scale"])),
                ParamSpec("autoguidance_scale", "double", float(defaults["autoguidance_scale"])),
                ParamSpec("eta", "double", float(defaults["eta"])),
                ParamSpec("num_inference_steps", "long", int(defaults["num_inference_steps"])),
            ]
        ),
    )


def _requirements() -> list[str]:
    """What the model was saved with, without a build's local suffix, which no registry serves."""
    found = []
    for package in _REQUIRED:
        try:
            found.append(f"{package}=={version(package).partition('+')[0]}")
        except PackageNotFoundError:
            found.append(package)
    return found
