"""Which pictures of a source are trained on and which are measured against: by seed and by person.

A source is read once, from front to back; of its pictures only those that may still be chosen are kept in memory.
"""

import heapq
import logging
from bisect import insort
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache

from pydantic import JsonValue

from hand1000.data.hagrid import ANNOTATIONS, read_hagrid
from hand1000.data.items import Problems, SourceItem, Unusable
from hand1000.data.own import folder_of_own, read_own
from hand1000.errors import Hand1000Error
from hand1000.gestures import phrase_of
from hand1000.randomness import derived_seeds
from hand1000.settings import FilterSettings
from hand1000.storage.sources import Source

logger = logging.getLogger(__name__)

SPARES = 1.0
"""Pictures drawn beyond those asked for, as a share of them, when MediaPipe may yet refuse some."""


@dataclass(frozen=True)
class Selection:
    """The pictures that may become the two image sets, in their order, and what the user should know of the choice.

    The first `num_train` and `num_test` of them become the sets; the others stand in for those that MediaPipe refuses.
    `unusable` are pictures of the source that could not be chosen, since what is said of them is malformed; `filtered`
    tells how many each filter took out.
    """

    source: Source = field(compare=False)
    train: tuple[SourceItem, ...]
    test: tuple[SourceItem, ...]
    num_train: int
    num_test: int
    warnings: tuple[str, ...] = ()
    unusable: tuple[Unusable, ...] = ()
    filtered: tuple[tuple[str, int], ...] = ()


def select_images(
    source: Source, gesture: str, *, num_train: int, num_test: int, seed: int, filters: FilterSettings
) -> Selection:
    """Choose the pictures of `gesture` to train on and those to measure against.

    HaGRID's division is kept: training draws from `train` and `val`, the test from `test`; that of a published data
    set is kept too. Other sources have none, so people are drawn; in a folder of one's own pictures each picture counts
    as a person unless `user_id` says otherwise. How pictures are drawn: `choose`.

    Args:
        source: a folder or an `s3://` prefix, `hand1000.storage.sources.open_source`.
        gesture: HaGRID's name of the gesture.
        num_train: training pictures; with fewer at hand all are taken, which is told as a warning.
        num_test: test pictures.
        seed: of the draw.
        filters: which labelled pictures are passed over; the selection's `filtered` tells how many.

    Raises:
        Hand1000Error: no such gesture, or too few pictures. Annotations that are malformed are passed over
            and told in the selection's `unusable`, files of them in its `warnings`.
    """
    problems = Problems(source.address)
    train, test = read_source(source, gesture, problems)
    fit = Filter(filters)
    spares = SPARES if filters.min_overlap else 0.0
    try:
        chosen = choose(
            fit(train),
            None if test is None else fit(test),
            num_train=num_train,
            num_test=num_test,
            spares=spares,
            seed=seed,
            name=f"{source.address}: {gesture}",
        )
    except Hand1000Error as error:
        said = [*fit.told(), *problems.warnings, *(f"{one.file}: {one.reason}" for one in problems.unusable)]
        raise Hand1000Error(f"{error}{f' ({len(said)} passed over, the first: {said[0]})' if said else ''}") from error
    return Selection(
        source,
        chosen.train,
        chosen.test,
        num_train,
        num_test,
        warnings=(*chosen.warnings, *fit.told(), *problems.warnings),
        unusable=tuple(problems.unusable),
        filtered=tuple(fit.counts.items()),
    )


def read_source(
    source: Source, gesture: str, problems: Problems
) -> tuple[Iterable[SourceItem], Iterable[SourceItem] | None]:
    """The pictures of `gesture` to train on and, where the source is divided, those to measure against.

    Each is read once, the first one first; what is wrong goes to `problems`. Raises as `select_images` does.
    """
    phrase_of(gesture)
    folders = source.folders()
    if ANNOTATIONS in folders:
        return read_hagrid(source, gesture, problems)
    if "train" in folders and "test" in folders:
        return read_own(source, "train", gesture), read_own(source, "test", gesture)
    return read_own(source, folder_of_own(source, gesture), gesture), None


class Filter:
    """Takes pictures out by what is labelled in them, and counts them.

    Args:
        settings: the bounds.
    """

    def __init__(self, settings: FilterSettings) -> None:
        self._settings = settings
        self.counts = {"hand too small": 0, "hand at the border": 0, "too many hands": 0}

    def __call__(self, items: Iterable[SourceItem]) -> Iterator[SourceItem]:
        """Those of `items` that pass."""
        for item in items:
            if reason := self._reason(item):
                self.counts[reason] += 1
            else:
                yield item

    def told(self) -> list[str]:
        """How many each filter has taken out, as warnings."""
        return [f"{count} pictures filtered: {reason}" for reason, count in self.counts.items() if count]

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


def selection_facts(selection: Selection) -> list[JsonValue]:
    """What tells a selection from any other without reading the pictures: names, versions and labels."""
    items = [*selection.train, *selection.test]
    with ThreadPoolExecutor(selection.source.at_once) as pool:
        versions = pool.map(selection.source.version, [item.file for item in items])
        facts: list[JsonValue] = []
        for item, version in zip(items, versions, strict=True):
            bbox: list[JsonValue] | None = None if item.bbox is None else [*item.bbox]
            facts.append([item.file, item.user_id, bbox, item.caption, *version])
    others = (*selection.warnings, *(one.file for one in selection.unusable), *map(str, selection.filtered))
    return [len(selection.train), facts, [*others]]


@dataclass(frozen=True)
class Choice:
    """The pictures of the two sides, in their order, spares included; and what the user should know."""

    train: tuple[SourceItem, ...]
    test: tuple[SourceItem, ...]
    warnings: tuple[str, ...]


def choose(
    train: Iterable[SourceItem],
    test: Iterable[SourceItem] | None,
    *,
    num_train: int,
    num_test: int,
    spares: float,
    seed: int,
    name: str,
) -> Choice:
    """Draw the pictures, each side in an order that its keys and `seed` decide, not the order of a listing.

    The first 200 of 1,000 drawn for training are the 200 that would be drawn alone. No person is on both sides: a
    person whom the source has on both is left out of the test.

    Args:
        train: the pictures that may be trained on; read once, before `test`.
        test: those that may be measured against; None if the source has no such division. Then people are drawn from
            `train` for the test until there are `num_test` pictures of them, so it depends on `num_test` who is left.
        num_train: at most so many; with fewer at hand all are taken, which is told as a warning.
        num_test: at least so many.
        spares: how many more of each, as a share, where there are as many.
        seed: of the draw.
        name: the source's name for messages.

    Raises:
        Hand1000Error: too few pictures; the message states how many there are.
    """
    most_train, most_test = (round(count * (1 + spares)) for count in (num_train, num_test))
    people: set[str] = set()
    counts = {"train": 0, "test": 0}

    def counted(items: Iterable[SourceItem], side: str) -> Iterator[SourceItem]:
        for item in items:
            counts[side] += 1
            yield item

    def noted(items: Iterable[SourceItem]) -> Iterator[SourceItem]:
        for item in items:
            people.add(item.user_id)
            yield item

    if test is None:
        people_held = _PeopleHeldOut(most_test, seed)
        pool = _first(most_train, counted(people_held.pass_on(train), "train"), seed)
        held_out = list(counted(people_held.pictures(), "test"))[:most_test]
    else:
        pool = _first(most_train, counted(noted(train), "train"), seed)
        others = (item for item in test if item.user_id not in people)
        held_out = _first(most_test, counted(others, "test"), seed)
    if len(held_out) < num_test or not pool:
        raise Hand1000Error(
            f"{name}: too few pictures: {counts['train']} to train on and {counts['test']} of other people to measure "
            f"against, where {num_train} and {num_test} are asked for; add pictures or lower data.test_images"
        )
    warnings = []
    if len(pool) < num_train:
        # Without the source: the warning is kept in the data set, which is named by its content.
        warnings.append(f"all {len(pool)} training pictures are used; {num_train} were asked for")
        logger.warning("%s: %s", name, warnings[0])
    return Choice(tuple(pool), tuple(held_out), tuple(warnings))


class _PeopleHeldOut:
    """The first people in the order of their draws who together have `count` pictures.

    Of the others, whose draws come later, nothing is kept.
    """

    def __init__(self, count: int, seed: int) -> None:
        self._count, self._seed = count, seed
        self._order: list[tuple[int, str]] = []
        self._pictures: dict[str, list[SourceItem]] = {}
        self._held = 0
        self._draw = lru_cache(maxsize=100_000)(derived_seeds(seed, "select", "person"))

    def pass_on(self, items: Iterable[SourceItem]) -> Iterator[SourceItem]:
        """The pictures of everyone else, once it is sure that they are not among the first."""
        for item in items:
            person = (self._draw(item.user_id), item.user_id)
            if item.user_id not in self._pictures:
                if self._held >= self._count and self._order and person > self._order[-1]:
                    yield item
                    continue
                insort(self._order, person)
                self._pictures[item.user_id] = []
            self._pictures[item.user_id].append(item)
            self._held += 1
            while self._order and self._held - len(self._pictures[self._order[-1][1]]) >= self._count:
                released = self._pictures.pop(self._order.pop()[1])
                self._held -= len(released)
                yield from released

    def pictures(self) -> Iterator[SourceItem]:
        """Theirs, in the order of the people."""
        for _, user_id in self._order:
            yield from _first(len(self._pictures[user_id]), self._pictures[user_id], self._seed)


def _first(count: int, items: Iterable[SourceItem], seed: int) -> list[SourceItem]:
    """The first `count` in the order of their draws; no more than these are held at a time."""

    draw = lru_cache(maxsize=64)(lambda gesture: derived_seeds(seed, "select", "picture", gesture))
    return heapq.nsmallest(count, items, key=lambda item: (draw(item.gesture)(item.key), item.key))
