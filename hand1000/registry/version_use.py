"""Why a version in the registry is needed: an alias, an unfinished decision, or that nobody has decided yet."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from hand1000.registry.decisions import Decision, derive_states, parse_decisions
from hand1000.registry.versions import CANDIDATES, CHAMPION, PREVIOUS

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

WAITING = "waits for a decision"


class VersionUse:
    """Why each of all models' versions is needed, and since when it is not."""

    def __init__(self, models: Iterable["RegisteredModel"], versions: Sequence["ModelVersion"]) -> None:
        self._reasons: dict[tuple[str, str], set[str]] = defaultdict(set)
        self._decisions: dict[str, tuple[Decision, ...]] = {}
        self._states: dict[tuple[str, str], str] = {}
        by_name: dict[str, list[ModelVersion]] = defaultdict(list)
        for version in versions:
            by_name[version.name].append(version)
        for model in models:
            for alias, number in model.aliases.items():
                self._reasons[model.name, str(number)].add(f"{alias} of {model.name}")
        reviewed = {model.name: model for model in models if not model.name.endswith(CANDIDATES)}
        for name in {name.removesuffix(CANDIDATES) for name in by_name}:
            self._read_decisions(name, reviewed.get(name), by_name)

    def _read_decisions(
        self, name: str, model: "RegisteredModel | None", by_name: Mapping[str, Sequence["ModelVersion"]]
    ) -> None:
        decisions = parse_decisions(name, model.tags) if model else ()
        self._decisions[name] = decisions
        # A command that was killed has recorded its decision, and the next command sets the aliases.
        for decision in [decision for decision in decisions if decision.version is not None][-1:]:
            self._reasons[name, str(decision.version)].add(f"{CHAMPION} of {name}")
            if decision.champion_before is not None:
                self._reasons[name, str(decision.champion_before)].add(f"{PREVIOUS} of {name}")
        candidates = by_name[f"{name}{CANDIDATES}"]
        states = derive_states([int(version.version) for version in candidates], decisions, None)
        self._states |= {_key(version): states[int(version.version)] for version in candidates}

    def reasons(self, version: "ModelVersion") -> set[str]:
        """Why the version is needed; empty if it is not."""
        reasons = set(self._reasons[_key(version)])
        if not version.name.startswith("hand1000-"):
            reasons.add(f"a version of {version.name}")
        return reasons | ({WAITING} if self.waits(version) else set())

    def waits(self, version: "ModelVersion") -> bool:
        """Whether the version is a candidate that nobody has decided on."""
        return self._states.get(_key(version)) == "pending"

    def since(self, version: "ModelVersion") -> float:
        """When the version was made, decided on, or replaced, in seconds since 1970."""
        is_candidate = version.name.endswith(CANDIDATES)
        decisions = self._decisions.get(version.name.removesuffix(CANDIDATES), ())
        last = version.creation_timestamp / 1000
        for index, decision in enumerate(decisions):
            numbers = {decision.candidate} if is_candidate else {decision.version, decision.champion_before}
            if int(version.version) in numbers:
                # What a decision put into use went out of use with a later one.
                follower = decisions[min(index + 1, len(decisions) - 1)]
                last = max(last, follower.when.timestamp())
        return last


def _key(version: "ModelVersion") -> tuple[str, str]:
    """Name and number; MLflow gives the number as an integer or as a text, depending on its store."""
    return version.name, str(version.version)
