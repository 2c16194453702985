"""Registered versions: their names, their tags, and the champion.

The pipeline writes to `hand1000-<gestures>-candidates` only. A reviewer copies a version to `hand1000-<gestures>`: with
two names, MLflow's permissions can separate the two duties.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from hand1000.gestures import slug
from hand1000.registry.connection import Tracking

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion

CHAMPION, PREVIOUS = "champion", "previous"
"""Aliases of a reviewed model: the version in use and the one before it. Only a reviewer sets them."""

MODEL_DIGEST = "hand1000.model_digest"
"""Tag: digest of the manifest of the weights."""

MODEL_ID = "hand1000.model_id"
"""Tag: MLflow's id of the logged model that holds the files, which the registry itself does not keep."""

RUN_KEY = "hand1000.run_key"
"""Tag of a run and of its version: the key of the workflow run."""

ENDED = "hand1000.ended"
"""Tag of a workflow's run: the status with which it ended when its results were recorded."""

GESTURE = "hand1000.gesture"
"""Tag: the gestures, separated by commas."""

DATASET, FEATURE, RECIPE = "hand1000.dataset", "hand1000.feature", "hand1000.recipe"
"""Tags: digests of the dataset and feature that a version was trained on, and of its settings and base model."""

TRAINED_ON = {DATASET: "prepare_data", FEATURE: "compute_gesture_feature"}
"""The kind of the artifact whose digest a tag holds."""

VERDICT, GATES, COMPARED_WITH = "hand1000.verdict", "hand1000.gates", "hand1000.champion"
"""Tags of a candidate: `passed` or `failed`; its gates in one line; the champion it was compared with, "" for none."""

STATE = "hand1000.state"
"""Tag of a candidate for MLflow's page: its state. The decisions are in the reviewed model; nothing reads this tag."""

DECISION = "hand1000.decision."
"""Prefix of the tags of a reviewed model that hold its decisions, followed by six digits."""

REMOVED = "hand1000.removed"
"""Tag of a version and of its logged model: when retention removed the weights, in UTC."""

FORGOTTEN = "hand1000.forgotten"
"""Tag of a version and of its run: when images that it was trained on were removed on request, in UTC."""

METRIC = "metric."
"""Prefix of the tags that hold metrics."""

CANDIDATES = "-candidates"
"""Suffix of the name of a model of candidates."""

ARTIFACTS = "hand1000.artifact."
"""Prefix of the tags of a stage's run that hold the addresses of its artifacts."""

MODEL_VERSIONS = "mlflow.modelVersions"
"""MLflow's own tag of a logged model: the versions that refer to it, as JSON."""

MODEL_NAME = re.compile(r"hand1000-[A-Za-z0-9_-]+")
"""Names of this project's registered models."""


@dataclass(frozen=True)
class RegisteredVersion:
    """A version in the registry and its tags."""

    name: str
    version: int
    tags: Mapping[str, str]

    @classmethod
    def of(cls, version: "ModelVersion") -> Self:
        """Read MLflow's record of a version."""
        return cls(version.name, int(version.version), dict(version.tags))

    @property
    def uri(self) -> str:
        """The address `models:/<name>/<version>`."""
        return f"models:/{self.name}/{self.version}"

    @property
    def model_id(self) -> str:
        """MLflow's id of the logged model that holds the files; "" if an earlier hand1000 registered the version."""
        return self.tags.get(MODEL_ID, "")

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics on the test images, by their names in the report."""
        return {key.removeprefix(METRIC): float(value) for key, value in self.tags.items() if key.startswith(METRIC)}


def candidate_name(gestures: Sequence[str]) -> str:
    """Return the name of the model to which the pipeline adds versions, such as `hand1000-call-four-candidates`."""
    return f"{reviewed_name(gestures)}{CANDIDATES}"


def reviewed_name(gestures: Sequence[str]) -> str:
    """Return the name of the model to which a reviewer promotes versions, such as `hand1000-call-four`."""
    return f"hand1000-{slug(gestures)}"


def create_model_if_missing(tracking: Tracking, name: str) -> None:
    """Create the registered model `name`; another process may do the same at the same time."""
    from mlflow.exceptions import MlflowException

    with tracking.readable_errors():
        try:
            tracking.client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise


def find_champion(tracking: Tracking, gestures: Sequence[str]) -> RegisteredVersion | None:
    """Return the version in use, which has the alias `champion` of the reviewed model, or None."""
    client = tracking.client
    with tracking.readable_errors():
        models = client.search_registered_models(f"name = '{reviewed_name(gestures)}'")
        if not models or CHAMPION not in models[0].aliases:
            return None
        number = models[0].aliases[CHAMPION]
        return RegisteredVersion.of(client.get_model_version(models[0].name, str(number)))


def source_address(tracking: Tracking, logged: "LoggedModel") -> str:
    """Return the address by which a new version refers to the files of a logged model."""
    # MLflow's embedded store would look up `models:/<id>` at the process's global URI, not at ours.
    embedded = tracking.lock_file is not None
    return str(logged.artifact_location) if embedded else f"models:/{logged.model_id}"


def log_model_output(tracking: Tracking, run_id: str, model_id: str) -> None:
    """Record a logged model as output of a run, which MLflow's database refuses the second time."""
    from mlflow.entities import LoggedModelOutput

    outputs = tracking.client.get_run(run_id).outputs
    if model_id not in {output.model_id for output in (outputs.model_outputs if outputs else ())}:
        tracking.client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])


def link_logged_model(tracking: Tracking, version: RegisteredVersion) -> None:
    """Let MLflow's page of the logged model show the version; a server does so itself, an embedded MLflow does not."""
    if not version.model_id:
        return
    with tracking.readable_errors():
        present = tracking.client.get_logged_model(version.model_id).tags.get(MODEL_VERSIONS, "[]")
        links = json.loads(present)
        link = {"name": version.name, "version": version.version}
        if not any((other["name"], int(other["version"])) == (version.name, version.version) for other in links):
            tracking.client.set_logged_model_tags(version.model_id, {MODEL_VERSIONS: json.dumps([*links, link])})
