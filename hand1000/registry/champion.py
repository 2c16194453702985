"""The version that a new one would replace, and what the tags of versions record."""

from collections.abc import Mapping, Sequence

from hand1000.gestures import slug
from hand1000.registry.connection import Tracking
from hand1000.registry.register import RegisteredVersion, candidate_name

CHAMPION = "champion"
"""Alias of the version in use, set by a reviewer."""

DATASET, FEATURE, RECIPE = "hand1000.dataset", "hand1000.feature", "hand1000.recipe"
"""Tags: digests of the dataset and feature that a version was trained on, and of its settings and base model."""

GATES = "hand1000.gates"
"""Tag: outcome of a retraining's gates."""


def find_champion(tracking: Tracking, gestures: Sequence[str]) -> RegisteredVersion | None:
    """Return the reviewed version in use, else the newest candidate of a retraining, else None."""
    client = tracking.client
    with tracking.readable_errors():
        reviewed = client.search_registered_models(f"name = 'hand1000-{slug(gestures)}'")
        if reviewed and CHAMPION in reviewed[0].aliases:
            number = reviewed[0].aliases[CHAMPION]
            return RegisteredVersion.of(client.get_model_version(reviewed[0].name, str(number)))
        versions = client.search_model_versions(f"name = '{candidate_name(gestures)}'")
    # Candidates without gates were registered manually, to try something.
    candidates = [RegisteredVersion.of(version) for version in versions if GATES in version.tags]
    return max(candidates, key=lambda candidate: candidate.version, default=None)


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
