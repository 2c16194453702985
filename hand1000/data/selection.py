"""Which pictures of a source are trained on and which are measured against: by seed and by person.

A source is read once, from front to back; of its pictures only those that may still be chosen are kept in memory.
"""

import itertools
import logging
from bisect import insort
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from operator import itemgetter

from pydantic import JsonValue

from hand1000.config.data_settings import FilterSettings
from hand1000.core.errors import Hand1000Error
from hand1000.core.rng import derived_seeds
from hand1000.data.hagrid import ANNOTATIONS, read_hagrid
from hand1000.data.image_folder import find_image_folder, read_image_folder
from hand1000.data.items import IssueLog, SkippedImage, SourceImage
from hand1000.gestures import gesture_phrase, group_by_gesture
from hand1000.storage.sources import Source

logger = logging.getLogger(__name__)

SPARE_FRACTION = 1.0
"""Pictures drawn beyond those asked for, as a share of them, when MediaPipe may yet refuse some."""


@dataclass(frozen=True)
class Selection:
    """The pictures that may become the two image sets, in their order, and what the user should know of the choice.

    Of each gesture the first `num_train` and `num_test` become the sets; the others stand in for those that MediaPipe
    refuses.
    `unusable` are pictures of the source that could not be chosen, since what is said of them is malformed; `filtered`
    tells how many each filter took out.
    """

    source: Source = field(compare=False)
    train: tuple[SourceImage, ...]
    test: tuple[SourceImage, ...]
    num_train: int
    num_test: int
    warnings: tuple[str, ...] = ()
    unusable: tuple[SkippedImage, ...] = ()
    filtered: tuple[tuple[str, int], ...] = ()

    def cache_key_fields(self) -> list[JsonValue]:
        """What distinguishes the selection from any other without reading the images."""
        return selection_facts(self)


def select_images(
    source: Source, gestures: Sequence[str], *, num_train: int, num_test: int, seed: int, filters: FilterSettings
) -> Selection:
    """Choose the pictures of `gestures` to train on and those to measure against.

    HaGRID's division is kept: training draws from `train` and `val`, the test from `test`; that of a published data
    set is kept too, if every gesture has one. Other sources have none, so people are drawn; in a folder of one's own
    pictures each picture counts as a person unless `user_id` says otherwise. How pictures are drawn: `choose`.

    Args:
        source: a folder or an `s3://` prefix, `hand1000.storage.sources.open_source`.
        gestures: HaGRID's names of them.
        num_train: training pictures of each; with fewer at hand all are taken, which is told as a warning.
        num_test: test pictures of each.
        seed: of the draw.
        filters: which labelled pictures are passed over; the selection's `filtered` tells how many.

    Raises:
        Hand1000Error: no such gesture, or too few pictures. Annotations that are malformed are passed over
            and told in the selection's `unusable`, files of them in its `warnings`.
    """
    problems = IssueLog(source.root)
    sides = {gesture: read_source(source, gesture, problems, alone=len(gestures) == 1) for gesture in gestures}
    fit = Filter(filters)
    train = {gesture: fit(items) for gesture, (items, _) in sides.items()}
    test = {gesture: fit(items) for gesture, (_, items) in sides.items() if items is not None}
    divided = len(test) == len(train)
    if not divided:
        train = {gesture: itertools.chain(items, test.get(gesture, ())) for gesture, items in train.items()}
    try:
        chosen = split_by_person(
            train,
            test if divided else None,
            num_train=num_train,
            num_test=num_test,
            spares=SPARE_FRACTION if filters.min_detector_iou else 0.0,
            seed=seed,
            name=source.root,
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
    source: Source, gesture: str, problems: IssueLog, *, alone: bool = True
) -> tuple[Iterable[SourceImage], Iterable[SourceImage] | None]:
    """The pictures of `gesture` to train on and, where the source is divided, those to measure against.

    Each is read once, the first one first; what is wrong goes to `problems`. `alone` tells whether pictures of which
    nothing says what they show are taken for this gesture's. Raises as `select_images` does.
    """
    gesture_phrase(gesture)
    folders = source.list_folders()
    if ANNOTATIONS in folders:
        return read_hagrid(source, gesture, problems)
    if "train" in folders and "test" in folders:
        return read_image_folder(source, "train", gesture, alone=alone), read_image_folder(
            source, "test", gesture, alone=alone
        )
    return read_image_folder(source, find_image_folder(source, gesture), gesture, alone=alone), None


class Filter:
    """Takes pictures out by what is labelled in them, and counts them.

    Args:
        settings: the bounds.
    """

    def __init__(self, settings: FilterSettings) -> None:
        self._settings = settings
        self.counts = {"hand too small": 0, "hand at the border": 0, "too many hands": 0}

    def __call__(self, items: Iterable[SourceImage]) -> Iterator[SourceImage]:
        """Those of `items` that pass."""
        for item in items:
            if reason := self._reason(item):
                self.counts[reason] += 1
            else:
                yield item

    def told(self) -> list[str]:
        """How many each filter has taken out, as warnings."""
        return [f"{count} pictures filtered: {reason}" for reason, count in self.counts.items() if count]

    def _reason(self, item: SourceImage) -> str:
        if item.hands > self._settings.max_hands:
            return "too many hands"
        if item.bbox is None:
            return ""
        x, y, width, height = item.bbox
        if max(width, height) < self._settings.min_hand_size:
            return "hand too small"
        touches = min(x, y) <= 0 or max(x + width, y + height) >= 1 - 1e-6
        return "hand at the border" if touches and not self._settings.allow_border_hands else ""


def selection_facts(selection: Selection) -> list[JsonValue]:
    """What tells a selection from any other without reading the pictures: names, versions and labels."""
    items = [*selection.train, *selection.test]
    with ThreadPoolExecutor(selection.source.concurrency) as pool:
        versions = pool.map(selection.source.file_version, [item.file for item in items])
        facts: list[JsonValue] = []
        for item, version in zip(items, versions, strict=True):
            bbox: list[JsonValue] | None = None if item.bbox is None else [*item.bbox]
            facts.append([item.file, item.user_id, bbox, item.caption, *version])
    others = (*selection.warnings, *(one.file for one in selection.unusable), *map(str, selection.filtered))
    return [len(selection.train), facts, [*others]]


@dataclass(frozen=True)
class Choice:
    """The pictures of the two sides, in their order, spares included; and what the user should know."""

    train: tuple[SourceImage, ...]
    test: tuple[SourceImage, ...]
    warnings: tuple[str, ...]


def split_by_person(
    train: Mapping[str, Iterable[SourceImage]],
    test: Mapping[str, Iterable[SourceImage]] | None,
    *,
    num_train: int,
    num_test: int,
    spares: float,
    seed: int,
    name: str,
) -> Choice:
    """Draw the pictures, each side in an order that its keys and `seed` decide, not the order of a listing.

    The first 200 of 1,000 drawn for training are the 200 that would be drawn alone. No person is on both sides, be it
    with different gestures: a person whom the source has on both is left out of the test.

    Args:
        train: by gesture, the pictures that may be trained on; read once, before `test`.
        test: those that may be measured against; None if the source has no such division. Then people are drawn from
            `train` for the test until there are `num_test` pictures of each gesture, the same as for it alone; so it
            depends on `num_test` and on the gestures who is left.
        num_train: of each gesture at most so many; with fewer at hand all are taken, which is told as a warning.
        num_test: of each gesture so many.
        spares: how many more of each, as a share, where there are as many.
        seed: of the draw.
        name: the source's name for messages.

    Raises:
        Hand1000Error: too few pictures; the message states how many there are.
    """
    most_train, most_test = (round(count * (1 + spares)) for count in (num_train, num_test))
    people: set[str] = set()
    counts: dict[str, Counter[str]] = {"train": Counter(), "test": Counter()}

    def counted(items: Iterable[SourceImage], side: str) -> Iterator[SourceImage]:
        for item in items:
            counts[side][item.gesture] += 1
            yield item

    def noted(items: Iterable[SourceImage]) -> Iterator[SourceImage]:
        for item in items:
            people.add(item.user_id)
            yield item

    if test is None:
        people_held = _PeopleHeldOut(train, most_test, seed)
        pools = _first(most_train, counted(people_held.pass_on(_in_turn(train.values())), "train"), seed)
        pictures = group_by_gesture(counted(people_held.pictures(), "test"))
        held_out = {gesture: items[:most_test] for gesture, items in pictures.items()}
    else:
        pools = _first(most_train, counted(noted(itertools.chain.from_iterable(train.values())), "train"), seed)
        others = (item for item in itertools.chain.from_iterable(test.values()) if item.user_id not in people)
        held_out = _first(most_test, counted(others, "test"), seed)
    warnings = []
    for gesture in train:
        found, there = len(pools.get(gesture, ())), counts["test"][gesture]
        if there < num_test or not found:
            raise Hand1000Error(
                f"{name}: {gesture}: too few pictures: {counts['train'][gesture]} to train on and {there} of other "
                f"people to measure against, where {num_train} and {num_test} are asked for; add pictures or lower "
                "data.test_images"
            )
        if found < num_train:
            # Without the source: the warning is kept in the data set, which is named by its content.
            warnings.append(f"{gesture}: all {found} training pictures are used; {num_train} were asked for")
            logger.warning("%s: %s", name, warnings[-1])
    return Choice(
        tuple(itertools.chain.from_iterable(pools[gesture] for gesture in train)),
        tuple(itertools.chain.from_iterable(held_out[gesture] for gesture in train)),
        tuple(warnings),
    )


def _in_turn(parts: Iterable[Iterable[SourceImage]]) -> Iterator[SourceImage]:
    """One picture of each part after the other, so that none has to wait in memory for those of another gesture."""
    for row in itertools.zip_longest(*parts):
        yield from (item for item in row if item is not None)


class _PeopleHeldOut:
    """Of each gesture the first people who show it, in the order of their draws, who together have `count` pictures.

    They are held out with all that they show. Of others, whose draws come later than all of theirs, nothing is kept.
    """

    def __init__(self, gestures: Iterable[str], count: int, seed: int) -> None:
        self._count, self._seed = count, seed
        self._order: list[tuple[int, str]] = []
        self._pictures: dict[str, dict[str, list[SourceImage]]] = {}
        self._held: Counter[str] = Counter()
        self._lacking = set(gestures)
        self._draw = lru_cache(maxsize=100_000)(derived_seeds(seed, "select", "person"))

    def pass_on(self, items: Iterable[SourceImage]) -> Iterator[SourceImage]:
        """The pictures of everyone else, once it is sure that they are not among the first."""
        for item in items:
            person = (self._draw(item.user_id), item.user_id)
            if item.user_id not in self._pictures:
                if not self._lacking and self._order and person > self._order[-1]:
                    yield item
                    continue
                insort(self._order, person)
                self._pictures[item.user_id] = {}
            self._pictures[item.user_id].setdefault(item.gesture, []).append(item)
            self._held[item.gesture] += 1
            if self._held[item.gesture] >= self._count:
                self._lacking.discard(item.gesture)
            while not self._lacking and self._order and self._can_do_without(self._order[-1][1]):
                for gesture, released in self._pictures.pop(self._order.pop()[1]).items():
                    self._held[gesture] -= len(released)
                    yield from released
        yield from self._not_needed()

    def _can_do_without(self, user_id: str) -> bool:
        theirs = self._pictures[user_id].items()
        return all(self._held[gesture] - len(items) >= self._count for gesture, items in theirs)

    def _not_needed(self) -> Iterator[SourceImage]:
        """The pictures of people who show only what those before them have enough of."""
        people, self._order = self._order, []
        held: Counter[str] = Counter()
        for person in people:
            theirs = self._pictures[person[1]]
            if all(held[gesture] >= self._count for gesture in theirs):
                yield from itertools.chain.from_iterable(self._pictures.pop(person[1]).values())
            else:
                self._order.append(person)
                held.update({gesture: len(items) for gesture, items in theirs.items()})

    def pictures(self) -> Iterator[SourceImage]:
        """Theirs, in the order of the people."""
        for _, user_id in self._order:
            for gesture, items in self._pictures[user_id].items():
                yield from _first(len(items), items, self._seed)[gesture]


def _first(count: int, items: Iterable[SourceImage], seed: int) -> dict[str, list[SourceImage]]:
    """Of each gesture the first `count` in the order of their draws; some more than these are held at a time."""
    draw = lru_cache(maxsize=64)(lambda gesture: derived_seeds(seed, "select", "picture", gesture))
    kept: dict[str, list[tuple[int, str, SourceImage]]] = {}
    last: dict[str, int] = {}
    for item in items:
        number = draw(item.gesture)(item.key)
        if number > last.get(item.gesture, number):
            continue
        drawn = kept.setdefault(item.gesture, [])
        drawn.append((number, item.key, item))
        if len(drawn) > 2 * count:
            last[item.gesture] = _cut(drawn, count)
    for drawn in kept.values():
        _cut(drawn, count)
    return {gesture: [item for _, _, item in drawn] for gesture, drawn in kept.items()}


def _cut(drawn: list[tuple[int, str, SourceImage]], count: int) -> int:
    """Keep the first `count`; returns the draw of the last of them."""
    drawn.sort(key=itemgetter(0, 1))
    del drawn[count:]
    return drawn[-1][0] if drawn else 0
