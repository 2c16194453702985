"""Rows of `make bench`: one piece of work of the product beside the same work of a peer, measured in turn.

A module of `benchmarks` takes part with a function `measure_rows(options: BenchOptions) -> Iterator[Row]` and by its
name in `benchmarks.bench.MODULES`. It yields a row as soon as it is measured, and runs in a process of its own.
"""

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class BenchOptions:
    """What the caller of `measure_rows` asks for.

    Attributes:
        seconds: Time for one row, both sides together; `measure_row` stops repeating when it is spent.
        repeats: The most measurements of each side.
        short: Whether only equality matters: the least sizes that exercise both sides, in a few seconds.
        peers: Folder with checkouts of the peers' published repositories, by name, such as `Hand1000/`; a peer that
            it lacks is the one written in the benchmark.
        before: Checkout of a former build, the peer of rows that compare with it; without it there are no such rows.
    """

    seconds: float = 120.0
    repeats: int = 7
    short: bool = False
    peers: Path | None = None
    before: Path | None = None


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: The work, with its size.
        peer: Who else does it, and how.
        product: Measurements of the product, in `unit`; the i-th was taken beside the i-th of the peer.
        peer_values: Measurements of the peer, in `unit`.
        goal: The least `ratio` that is aimed at; None if the goal is `limit` or there is none.
        equal: Whether both sides had the same result; None where a comparison means nothing.
        limit: The largest median of the product that is aimed at, in `unit`.
        unit: "s", "GB" or another unit of which less is better.
        note: What a reader has to know, such as the profile that explains a goal that is missed.
        failure: Why there are no measurements; "" if there are.
    """

    name: str
    peer: str
    product: tuple[float, ...]
    peer_values: tuple[float, ...]
    goal: float | None = None
    equal: bool | None = None
    limit: float | None = None
    unit: str = "s"
    note: str = ""
    failure: str = ""

    def __post_init__(self) -> None:
        if self.failure:
            return
        for side, values in (("product", self.product), ("peer", self.peer_values)):
            if not values or min(values) <= 0:
                raise ValueError(f"{self.name}: no positive measurements of the {side}: {values}")

    @property
    def ratio(self) -> float:
        """How many times the product beats the peer: the peer's median divided by the product's."""
        return statistics.median(self.peer_values) / statistics.median(self.product)

    @property
    def met(self) -> bool | None:
        """Whether the results are equal and the goal is reached; None without a goal. A failed row is not met."""
        if self.failure:
            return False
        if self.goal is None and self.limit is None:
            return None
        fast = self.goal is None or self.ratio >= self.goal
        small = self.limit is None or statistics.median(self.product) <= self.limit
        return self.equal is not False and fast and small


@dataclass(frozen=True)
class Comparison:
    """What `measure_row` measures.

    Attributes:
        name: As in `Row`.
        peer: As in `Row`.
        run_product: Does the work once and returns its result.
        run_peer: The same by the peer.
        is_equal: Compares the two results; None where that means nothing.
        goal: As in `Row`.
        limit: As in `Row`.
        note: As in `Row`, or the function that makes it of the row's ratio.
        prepare: Runs before each side and is not timed, such as emptying a folder.
    """

    name: str
    peer: str
    run_product: Callable[[], Any]
    run_peer: Callable[[], Any]
    is_equal: Callable[[Any, Any], bool] | None = None
    goal: float | None = None
    limit: float | None = None
    note: str | Callable[[float], str] = ""
    prepare: Callable[[], object] = field(default=lambda: None)


def measure_row(comparison: Comparison, options: BenchOptions) -> Row:
    """Run both sides alternately, until a further pair would exceed the time of the row, and compare the results.

    The first pair warms up and is compared, but not counted if there is time for another. The order within a pair
    changes each time. An error of either side becomes a failed row, so that the module goes on with the next one.
    """
    log_start(comparison.name, comparison.peer)
    try:
        return _measure(comparison, options)
    except Exception as error:
        return failed_row(comparison.name, comparison.peer, error)


def log_start(name: str, peer: str) -> None:
    """Say on stderr which row is being measured."""
    print(f"measuring {name}, {peer}", file=sys.stderr, flush=True)


def failed_row(name: str, peer: str, error: BaseException | str) -> Row:
    """Return the row of a measurement that failed."""
    reason = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    output = getattr(error, "stderr", None) or ""
    last = (output.decode(errors="replace") if isinstance(output, bytes) else output).strip().splitlines()[-1:]
    return Row(name, peer, (), (), failure=" ".join(" ".join([reason, *last]).split()).replace("|", "/")[:500])


def _measure(comparison: Comparison, options: BenchOptions) -> Row:
    product: list[float] = []
    peer: list[float] = []
    equal: bool | None = None
    started = time.perf_counter()
    while True:
        sides = [(comparison.run_product, product), (comparison.run_peer, peer)]
        results = {}
        for run, seconds in sides if len(peer) % 2 == 0 else sides[::-1]:
            comparison.prepare()
            begun = time.perf_counter()
            results[run] = run()
            seconds.append(max(time.perf_counter() - begun, 1e-9))
        if comparison.is_equal and equal is not False:
            equal = comparison.is_equal(results[comparison.run_product], results[comparison.run_peer])
        del results
        spent = time.perf_counter() - started
        if options.short or len(peer) > options.repeats or spent * (len(peer) + 1) / len(peer) > options.seconds:
            break
    if len(peer) > 1:
        del product[0], peer[0]
    row = Row(
        comparison.name,
        comparison.peer,
        tuple(product),
        tuple(peer),
        goal=comparison.goal,
        equal=equal,
        limit=comparison.limit,
    )
    return replace(row, note=comparison.note if isinstance(comparison.note, str) else comparison.note(row.ratio))
