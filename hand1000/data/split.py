"""The subject-disjoint split of a source: training and test images by seed, with no person in both."""

import itertools
import logging
from bisect import insort
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from functools import lru_cache
from operator import itemgetter

from hand1000.core.errors import Hand1000Error
from hand1000.core.rng import derived_seeds
from hand1000.data.items import IssueLog, SourceImage
from hand1000.data.problem_kinds import IN_BOTH_SPLITS
from hand1000.gestures import group_by_gesture

logger = logging.getLogger(__name__)

_MAX_CACHED_PEOPLE = 100_000
_MAX_CACHED_GESTURES = 64


def split_by_person(
    train: Mapping[str, Iterable[SourceImage]],
    test: Mapping[str, Iterable[SourceImage]] | None,
    *,
    num_train: int,
    num_test: int,
    spare_fraction: float,
    seed: int,
    issues: IssueLog,
) -> tuple[list[SourceImage], list[SourceImage], list[str]]:
    """Sample the images of both splits, in an order that depends on their keys and `seed`, not on a listing.

    The first 200 of 1,000 training images are those that a sample of 200 would have. No person is in both splits, not
    even with different gestures: a person whom the source has in both is removed from the test.

    Args:
        train: Images that may be trained on, by gesture; read once, before `test`.
        test: Images that may be tested on, by gesture. None holds out people of `train` until they have `num_test`
            images of each gesture.
        num_train: Most training images per gesture; a gesture with fewer uses all and adds a warning.
        num_test: Test images per gesture.
        spare_fraction: Spare images per gesture, as a share of those asked for.
        seed: Random seed.
        issues: Log of the source; it receives the test images of people who are in `train`.

    Returns:
        The training and the test images in their order, spare ones included, and warnings for the user.

    Raises:
        Hand1000Error: There are too few images; the message states how many.
    """
    max_train, max_test = (round(count * (1 + spare_fraction)) for count in (num_train, num_test))
    train_people: set[str] = set()
    train_counts: Counter[str] = Counter()
    test_counts: Counter[str] = Counter()

    def count_images(items: Iterable[SourceImage], counts: Counter[str]) -> Iterator[SourceImage]:
        for item in items:
            counts[item.gesture] += 1
            if counts is train_counts:
                train_people.add(item.user_id)
            yield item

    if test is None:
        held_out = _HeldOutPeople(train, max_test, seed)
        others = held_out.pass_others(_interleave(train.values()))
        train_images = _lowest_hash_k(max_train, count_images(others, train_counts), seed)
        by_gesture = group_by_gesture(count_images(held_out.images(), test_counts))
        test_images = {gesture: items[:max_test] for gesture, items in by_gesture.items()}
    else:
        all_train = itertools.chain.from_iterable(train.values())
        train_images = _lowest_hash_k(max_train, count_images(all_train, train_counts), seed)
        new_people = _drop_people(itertools.chain.from_iterable(test.values()), train_people, issues)
        test_images = _lowest_hash_k(max_test, count_images(new_people, test_counts), seed)
    warnings = []
    for gesture in train:
        found = len(train_images.get(gesture, ()))
        if test_counts[gesture] < num_test or not found:
            raise Hand1000Error(
                f"{issues.address}: {gesture}: too few images: {train_counts[gesture]} to train on and "
                f"{test_counts[gesture]} of other people to test on, where {num_train} and {num_test} are needed; add "
                "images or lower data.test_images"
            )
        if found < num_train:
            # Without the source's name: the dataset keeps the warning, and its content names the dataset.
            warnings.append(f"{gesture}: all {found} training images are used; {num_train} were asked for")
            logger.warning("%s: %s", issues.address, warnings[-1])
    return (
        [item for gesture in train for item in train_images[gesture]],
        [item for gesture in train for item in test_images[gesture]],
        warnings,
    )


def _drop_people(items: Iterable[SourceImage], people: Container[str], issues: IssueLog) -> Iterator[SourceImage]:
    """Yield the images of others than `people`, and count the images of `people`."""
    for item in items:
        if item.user_id in people:
            issues.count(IN_BOTH_SPLITS, f"{item.file}: {item.user_id}")
        else:
            yield item


def _interleave(parts: Iterable[Iterable[SourceImage]]) -> Iterator[SourceImage]:
    """Yield one image of each part in turn, so that none waits in memory for those of another gesture."""
    for row in itertools.zip_longest(*parts):
        yield from (item for item in row if item is not None)


class _HeldOutPeople:
    """The people held out for the test: those with the lowest hashes who together have enough images of each gesture.

    All their images are held out. The images of other people pass, and only those that may still be needed stay in
    memory.
    """

    def __init__(self, gestures: Iterable[str], count: int, seed: int) -> None:
        self._count, self._seed = count, seed
        self._order: list[tuple[int, str]] = []  # Hash and name of each held-out person, sorted.
        self._images: dict[str, dict[str, list[SourceImage]]] = {}  # By person and gesture.
        self._num_held: Counter[str] = Counter()
        self._lacking = set(gestures)
        self._hash = lru_cache(maxsize=_MAX_CACHED_PEOPLE)(derived_seeds(seed, "select", "person"))

    def pass_others(self, items: Iterable[SourceImage]) -> Iterator[SourceImage]:
        """Yield the images of everyone else, once it is certain that the person is not held out."""
        for item in items:
            person = (self._hash(item.user_id), item.user_id)
            if item.user_id not in self._images:
                if not self._lacking and self._order and person > self._order[-1]:
                    yield item
                    continue
                insort(self._order, person)
                self._images[item.user_id] = {}
            self._images[item.user_id].setdefault(item.gesture, []).append(item)
            self._num_held[item.gesture] += 1
            if self._num_held[item.gesture] >= self._count:
                self._lacking.discard(item.gesture)
            while not self._lacking and self._order and self._is_dispensable(self._order[-1][1]):
                for gesture, released in self._images.pop(self._order.pop()[1]).items():
                    self._num_held[gesture] -= len(released)
                    yield from released
        yield from self._release_unneeded()

    def _is_dispensable(self, user_id: str) -> bool:
        images = self._images[user_id].items()
        return all(self._num_held[gesture] - len(items) >= self._count for gesture, items in images)

    def _release_unneeded(self) -> Iterator[SourceImage]:
        """Yield the images of people who only have gestures of which the people before them have enough."""
        people, self._order = self._order, []
        num_held: Counter[str] = Counter()
        for person in people:
            images = self._images[person[1]]
            if all(num_held[gesture] >= self._count for gesture in images):
                yield from itertools.chain.from_iterable(self._images.pop(person[1]).values())
            else:
                self._order.append(person)
                num_held.update({gesture: len(items) for gesture, items in images.items()})

    def images(self) -> Iterator[SourceImage]:
        """Yield all held-out images, person by person."""
        for _, user_id in self._order:
            for gesture, items in self._images[user_id].items():
                yield from _lowest_hash_k(len(items), items, self._seed)[gesture]


def _lowest_hash_k(count: int, items: Iterable[SourceImage], seed: int) -> dict[str, list[SourceImage]]:
    """Return the `count` images of each gesture with the lowest hashes, sorted; at most about 2 `count` in memory."""
    hash_of = lru_cache(maxsize=_MAX_CACHED_GESTURES)(
        lambda gesture: derived_seeds(seed, "select", "picture", gesture)  # codespell:ignore picture
    )  # codespell:ignore picture
    candidates: dict[str, list[tuple[int, str, SourceImage]]] = {}
    bounds: dict[str, int] = {}
    for item in items:
        value = hash_of(item.gesture)(item.key)
        if value > bounds.get(item.gesture, value):
            continue
        candidates.setdefault(item.gesture, []).append((value, item.key, item))
        if len(candidates[item.gesture]) > 2 * count:
            bounds[item.gesture] = _truncate(candidates[item.gesture], count)
    for entries in candidates.values():
        _truncate(entries, count)
    return {gesture: [item for _, _, item in entries] for gesture, entries in candidates.items()}


def _truncate(entries: list[tuple[int, str, SourceImage]], count: int) -> int:
    """Keep the `count` entries with the lowest hashes, in place, and return the highest of these hashes."""
    entries.sort(key=itemgetter(0, 1))
    del entries[count:]
    return entries[-1][0] if entries else 0
