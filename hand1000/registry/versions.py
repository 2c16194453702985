"""Registered versions: their names, their tags, and the champion.

The pipeline writes to `hand1000-<gestures>-candidates` only. A reviewer copies a version to `hand1000-<gestures>`: with
two names, MLflow's permissions can separate the two duties.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from hand1000.core.errors import Hand1000Error
from hand1000.gestures import slug
from hand1000.registry.connection import Tracking

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

CHAMPION, PREVIOUS = "champion", "previous"
"""Aliases of a reviewed model: the version in use and the one before it. Only a reviewer sets them."""

MODEL_DIGEST = "hand1000.model_digest"
"""Tag: digest of the manifest of the weights."""

MODEL_ID = "hand1000.model_id"
"""Tag: MLflow's id of the logged model that holds the files, which the registry itself does not keep."""

RUN_KEY = "hand1000.run_key"
"""Tag of a run and of its version: the key of the workflow run."""

GESTURE = "hand1000.gesture"
"""Tag: the gestures, separated by commas."""

DATASET, FEATURE, RECIPE = "hand1000.dataset", "hand1000.feature", "hand1000.recipe"
"""Tags: digests of the dataset and feature that a version was trained on, and of its settings and base model."""

VERDICT, GATES, COMPARED_WITH = "hand1000.verdict", "hand1000.gates", "hand1000.champion"
"""Tags of a candidate: `passed` or `failed`; its gates in one line; the champion it was compared with, "" for none."""

STATE = "hand1000.state"
"""Tag of a candidate for MLflow's page: its state. The decisions are in the reviewed model; nothing reads this tag."""

DECISION = "hand1000.decision."
"""Prefix of the tags of a reviewed model that hold its decisions, followed by six digits."""

REMOVED = "hand1000.removed"
"""Tag of a version and of its logged model: when retention removed the weights, in UTC."""

METRIC = "metric."
"""Prefix of the tags that hold metrics."""

CANDIDATES = "-candidates"
"""Suffix of the name of a model of candidates."""

_MODEL_VERSIONS = "mlflow.modelVersions"


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


def reviewed_name_of(candidates: str) -> str:
    """Return the name of the reviewed model of a model of candidates.

    Raises:
        Hand1000Error: `candidates` does not end in `-candidates`.
    """
    if not candidates.endswith(CANDIDATES):
        raise Hand1000Error(f"{candidates}: no model of candidates; their names end in {CANDIDATES}")
    return candidates.removesuffix(CANDIDATES)


def find_champion(tracking: Tracking, gestures: Sequence[str]) -> RegisteredVersion | None:
    """Return the version in use, which has the alias `champion` of the reviewed model, or None."""
    client = tracking.client
    with tracking.readable_errors():
        models = client.search_registered_models(f"name = '{reviewed_name(gestures)}'")
        if not models or CHAMPION not in models[0].aliases:
            return None
        number = models[0].aliases[CHAMPION]
        return RegisteredVersion.of(client.get_model_version(models[0].name, str(number)))


def get_version(tracking: Tracking, uri: str) -> RegisteredVersion:
    """Return the version at `models:/<name>/<version>`."""
    name, _, number = uri.removeprefix("models:/").rpartition("/")
    with tracking.readable_errors():
        return RegisteredVersion.of(tracking.client.get_model_version(name, number))


def tag_version(tracking: Tracking, version: RegisteredVersion, tags: Mapping[str, str]) -> None:
    """Set tags of a version, in place of earlier values."""
    with tracking.readable_errors():
        for key, value in tags.items():
            tracking.client.set_model_version_tag(version.name, str(version.version), key, value)


def link_logged_model(tracking: Tracking, version: RegisteredVersion) -> None:
    """Let MLflow's page of the logged model show the version; a server does so itself, an embedded MLflow does not."""
    if not version.model_id:
        return
    with tracking.readable_errors():
        present = tracking.client.get_logged_model(version.model_id).tags.get(_MODEL_VERSIONS, "[]")
        links = json.loads(present)
        link = {"name": version.name, "version": version.version}
        if not any((other["name"], int(other["version"])) == (version.name, version.version) for other in links):
            tracking.client.set_logged_model_tags(version.model_id, {_MODEL_VERSIONS: json.dumps([*links, link])})
