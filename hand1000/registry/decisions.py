"""The decisions of reviewers, and the state of a candidate that follows from them.

Each decision is a tag of the registered model `hand1000-<gestures>`, which the pipeline cannot edit: the tag
`hand1000.decision.000012` holds the 12th decision as JSON.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Self

from pydantic import Field, ValidationError

from hand1000.config.base import FrozenSettings, format_validation_error
from hand1000.core.documents import load_json
from hand1000.core.errors import Hand1000Error
from hand1000.gestures import parse_gestures
from hand1000.registry.versions import CANDIDATES, DECISION, MODEL_NAME, reviewed_name

MAX_REASON = 1000
MAX_NAME = 200

State = Literal["pending", "approved", "rejected", "superseded"]
Action = Literal["promote", "reject", "rollback"]

_ADDRESS = re.compile(r"(?:models:/)?([^/@]+)(?:/([1-9][0-9]{0,8}))?")


class Decision(FrozenSettings):
    """What a reviewer decided."""

    number: int = Field(ge=1, le=999_999, exclude=True, description="Place in the history, from 1.")
    action: Action
    candidate: int | None = Field(ge=1, description="Version of the candidates' model.")
    version: int | None = Field(ge=1, description="Version of the reviewer's model that became the champion.")
    who: str = Field(min_length=1, max_length=MAX_NAME)
    when: datetime = Field(description="UTC.")
    why: str = Field(max_length=2 * MAX_REASON + 2)
    override: bool = Field(description="Whether the reviewer overrode a refusal, such as failed gates.")
    champion_before: int | None = Field(ge=1)

    @property
    def tag(self) -> tuple[str, str]:
        """Key and value of the tag that keeps it."""
        return f"{DECISION}{self.number:06d}", self.model_dump_json()


@dataclass(frozen=True)
class ModelPair:
    """The two registered models of the same gestures.

    Attributes:
        name: The reviewer's model, `hand1000-<gestures>`, whose alias `champion` is the version in use.
    """

    name: str

    @property
    def candidates(self) -> str:
        """The model to which the pipeline adds versions."""
        return f"{self.name}{CANDIDATES}"

    @property
    def gestures(self) -> str:
        """The gestures, as in the name."""
        return self.name.removeprefix("hand1000-")

    @classmethod
    def of(cls, gestures: Sequence[str]) -> Self:
        """Return the models of HaGRID's names of gestures."""
        return cls(reviewed_name(gestures))

    @classmethod
    def named(cls, name: str) -> Self:
        """Return the models of which `name` is one."""
        return cls(name.removesuffix(CANDIDATES))


def parse_address(text: str) -> tuple[ModelPair, int | None]:
    """Read `four/3`, `call,four/3`, `models:/hand1000-four-candidates/3`, or the same without the version.

    Returns:
        The models, and the number after the slash or None.

    Raises:
        Hand1000Error: Not such an address, or an unknown gesture.
    """
    match = _ADDRESS.fullmatch(text.strip())
    if not match:
        raise Hand1000Error(f"{text!r}: not a candidate; write GESTURE/VERSION or models:/NAME/VERSION")
    name, number = match[1], int(match[2]) if match[2] else None
    pair = ModelPair.named(name) if MODEL_NAME.fullmatch(name) else ModelPair.of(parse_gestures(name))
    return pair, number


def parse_candidate(text: str) -> tuple[ModelPair, int]:
    """Read the address of one candidate; see `parse_address`.

    Raises:
        Hand1000Error: Not the address of a candidate's version.
    """
    pair, number = parse_address(text)
    if number is None:
        raise Hand1000Error(f"{text}: names no version; write {text}/VERSION (`hand1000 review list` has them)")
    if text.startswith("models:/") and f"{CANDIDATES}/" not in text:
        raise Hand1000Error(f"{text}: a version of the reviewer's model; name a candidate, models:/{pair.candidates}/N")
    return pair, number


def parse_decisions(name: str, tags: Mapping[str, str]) -> tuple[Decision, ...]:
    """Return the decisions among the tags of the registered model `name`, oldest first.

    Raises:
        Hand1000Error: A tag was damaged by another program.
    """
    decisions = []
    for key in sorted(key for key in tags if key.startswith(DECISION)):
        try:
            values = load_json(tags[key])
            decisions.append(Decision.model_validate({**values, "number": key.removeprefix(DECISION)}))
        except ValidationError as error:
            raise Hand1000Error(format_validation_error(error, f"{name}: tag {key}")) from error
        except (ValueError, TypeError) as error:
            raise Hand1000Error(f"{name}: tag {key}: not a JSON object; restore or delete it") from error
    return tuple(decisions)


def derive_states(candidates: Iterable[int], decisions: Sequence[Decision], champion: int | None) -> dict[int, State]:
    """Return the state of each candidate.

    Args:
        candidates: Numbers of the candidates.
        decisions: All decisions, oldest first.
        champion: Number of the candidate that is the champion, None without one.
    """
    verdicts = {decision.candidate: decision.action for decision in decisions if decision.action != "rollback"}
    newest_promoted = max((number or 0 for number, action in verdicts.items() if action == "promote"), default=0)
    states: dict[int, State] = {}
    for candidate in candidates:
        action = verdicts.get(candidate)
        if candidate == champion:
            states[candidate] = "approved"
        elif action == "reject":
            states[candidate] = "rejected"
        elif action == "promote" or candidate < newest_promoted:
            states[candidate] = "superseded"
        else:
            states[candidate] = "pending"
    return states
