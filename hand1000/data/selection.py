"""Which pictures of a source are trained on and which are measured against: by seed and by person."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, JsonValue

from hand1000.data.imageset import BBox
from hand1000.errors import Hand1000Error
from hand1000.randomness import derived_seed
from hand1000.settings import FilterSettings

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class SourceItem:
    """One picture of a source, before it is cropped.

    `key` names it within its gesture and is safe in a file name; `bbox` is the hand that makes the gesture, relative
    to the upright picture; `hands` is how many hands are labelled, 0 if none is; `attributes` are facts that are known
    of it, `handedness` among them.
    """

    key: str
    path: Path
    gesture: str
    user_id: str
    bbox: BBox | None = None
    hands: int = 0
    caption: str | None = None
    attributes: dict[str, JsonValue] | None = None


class Unusable(BaseModel):
    """A picture that was passed over; `file` is `<gesture>/<name>`, equal wherever the source lies."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    reason: str


@dataclass(frozen=True)
class Selection:
    """The pictures of the two image sets in their order, and what the user should know of the choice.

    `unusable` are pictures of the source that could not be chosen, since what is said of them is malformed; `filtered`
    tells how many each filter took out.
    """

    train: tuple[SourceItem, ...]
    test: tuple[SourceItem, ...]
    warnings: tuple[str, ...]
    unusable: tuple[Unusable, ...] = ()
    filtered: tuple[tuple[str, int], ...] = ()


class Filter:
    """Takes pictures out by what is labelled in them, and counts them.

    Args:
        settings: the bounds.
    """

    def __init__(self, settings: FilterSettings) -> None:
        self._settings = settings
        self.counts = {"hand too small": 0, "hand at the border": 0, "too many hands": 0}

    def __call__(self, items: Iterable[SourceItem]) -> list[SourceItem]:
        """Those of `items` that pass."""
        kept = []
        for item in items:
            if reason := self._reason(item):
                self.counts[reason] += 1
            else:
                kept.append(item)
        return kept

    def _reason(self, item: SourceItem) -> str:
        if item.hands > self._settings.max_hands:
            return "too many hands"
        if item.bbox is None:
            return ""
        x, y, width, height = item.bbox
        if max(width, height) < self._settings.min_hand:
            return "hand too small"
        touches = min(x, y) <= 0 or max(x + width, y + height) >= 1 - 1e-6
        return "hand at the border" if touches and not self._settings.at_border else ""


def selection_facts(selection: Selection) -> list[list[JsonValue]]:
    """What tells a selection from any other without reading the pictures: names, sizes, times and labels."""
    facts: list[list[JsonValue]] = []
    for split, items in (("train", selection.train), ("test", selection.test)):
        for item in items:
            status = item.path.stat()
            bbox: list[JsonValue] | None = None if item.bbox is None else [*item.bbox]
            facts.append([split, item.key, status.st_size, status.st_mtime_ns, item.user_id, bbox, item.caption])
    counts: list[JsonValue] = [*map(str, selection.filtered)]
    return [*facts, [*selection.warnings], [one.file for one in selection.unusable], counts]


def choose(
    train: Iterable[SourceItem],
    test: Iterable[SourceItem] | None,
    *,
    num_train: int,
    num_test: int,
    seed: int,
    source: str,
) -> Selection:
    """Draw the pictures, each side in an order that its keys and `seed` decide, not the order of a listing.

    The first 200 of 1,000 drawn for training are the 200 that would be drawn alone. No person is on both sides: a
    person whom the source has on both is left out of the test.

    Args:
        train: the pictures that may be trained on.
        test: those that may be measured against; None if the source has no such division. Then people are drawn from
            `train` for the test until there are `num_test` pictures of them, so it depends on `num_test` who is left.
        num_train: at most so many; with fewer at hand all are taken, which is told as a warning.
        num_test: exactly so many.
        seed: of the draw.
        source: the source's name for messages.

    Raises:
        Hand1000Error: too few pictures; the message states how many there are.
    """
    pool = _ordered(train, seed)
    if test is None:
        pool, held_out = _split_people(pool, num_test, seed)
    else:
        people = {item.user_id for item in pool}
        held_out = [item for item in _ordered(test, seed) if item.user_id not in people]
    if len(held_out) < num_test or not pool:
        raise Hand1000Error(
            f"{source}: too few pictures: {len(pool)} to train on and {len(held_out)} of other people to measure "
            f"against, where {num_train} and {num_test} are asked for; add pictures or lower data.test_images"
        )
    warnings = []
    if len(pool) < num_train:
        # Without the source: the warning is kept in the data set, which is named by its content.
        warnings.append(f"all {len(pool)} training pictures are used; {num_train} were asked for")
        logger.warning("%s: %s", source, warnings[0])
    return Selection(tuple(pool[:num_train]), tuple(held_out[:num_test]), tuple(warnings))


def _ordered(items: Iterable[SourceItem], seed: int) -> list[SourceItem]:
    return _by_draw(items, seed, lambda item: ("picture", item.gesture, item.key))


def _split_people(pool: list[SourceItem], num_test: int, seed: int) -> tuple[list[SourceItem], list[SourceItem]]:
    pictures: dict[str, list[SourceItem]] = {}
    for item in pool:
        pictures.setdefault(item.user_id, []).append(item)
    held_out: list[SourceItem] = []
    for person in _by_draw(pictures, seed, lambda user_id: ("person", user_id)):
        if len(held_out) >= num_test:
            break
        held_out += pictures.pop(person)
    return [item for item in pool if item.user_id in pictures], held_out


def _by_draw(items: Iterable[T], seed: int, key: Callable[[T], Sequence[str]]) -> list[T]:
    return sorted(items, key=lambda item: (derived_seed(seed, "select", *key(item)), key(item)))
