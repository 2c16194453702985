"""The version that a new one would take the place of, and what versions tell of their making."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hand1000.gestures import slug
from hand1000.registry.connection import Tracking
from hand1000.registry.register import METRIC, candidate_name

CHAMPION = "champion"
"""The alias of the version in use, set by a reviewer."""

DATASET, FEATURE, RECIPE = "hand1000.dataset", "hand1000.feature", "hand1000.recipe"
"""Tags: the digests of the data set and feature that a version was trained on, and of its settings and base model."""

GATES = "hand1000.gates"
"""Tag: what came of a retraining's gates."""


@dataclass(frozen=True)
class Version:
    """A registered version and its tags."""

    name: str
    version: str
    tags: Mapping[str, str]

    @property
    def uri(self) -> str:
        """`models:/<name>/<version>`."""
        return f"models:/{self.name}/{self.version}"

    @property
    def measures(self) -> dict[str, float]:
        """Its measures on the held-out pictures, by their names in the report."""
        return {key.removeprefix(METRIC): float(value) for key, value in self.tags.items() if key.startswith(METRIC)}


def find_champion(tracking: Tracking, gestures: Sequence[str]) -> Version | None:
    """The reviewed version in use; before there is one the newest candidate of a retraining; None without any."""
    client = tracking.client
    with tracking.readable_errors():
        reviewed = client.search_registered_models(f"name = 'hand1000-{slug(gestures)}'")
        if reviewed and CHAMPION in reviewed[0].aliases:
            number = reviewed[0].aliases[CHAMPION]
            return _version(client.get_model_version(reviewed[0].name, str(number)))
        found = client.search_model_versions(f"name = '{candidate_name(gestures)}'")
        candidates = [one for one in found if GATES in one.tags]  # Others were made by hand, to try something.
    return _version(max(candidates, key=lambda one: int(one.version))) if candidates else None


def get_version(tracking: Tracking, uri: str) -> Version:
    """The version at `models:/<name>/<version>`."""
    name, _, number = uri.removeprefix("models:/").rpartition("/")
    with tracking.readable_errors():
        return _version(tracking.client.get_model_version(name, number))


def tag_version(tracking: Tracking, version: Version, tags: Mapping[str, str]) -> None:
    """Set tags of a version; the last value stays."""
    with tracking.readable_errors():
        for key, value in tags.items():
            tracking.client.set_model_version_tag(version.name, version.version, key, value)


def _version(found) -> Version:
    return Version(found.name, str(found.version), dict(found.tags))
