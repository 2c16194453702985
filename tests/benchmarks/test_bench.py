"""The rows of `make bench`."""

import json
from dataclasses import asdict

import pytest

from benchmarks.bench import format_row, row_from_json
from benchmarks.rows import BenchOptions, Comparison, Row, measure_row


def test_the_ratio_is_that_of_the_medians() -> None:
    row = Row("work", "peer", (2.0, 1.0, 9.0), (8.0, 3.0, 4.0), goal=2.0, equal=True)
    assert row.ratio == 2 and row.met
    assert format_row(row) == "| work | peer | 2 s (1 to 9, 3) | 4 s (3 to 8, 3) | 2.00x | 2x | yes | yes |"


@pytest.mark.parametrize(
    ("values", "met"),
    [
        ({"goal": 2.1}, False),
        ({"goal": 2.0, "equal": False}, False),
        ({"limit": 1.9}, False),
        ({"limit": 2.0, "goal": 2.0}, True),
        ({}, None),
    ],
)
def test_a_goal_needs_equality_and_all_bounds(values: dict, met: bool | None) -> None:
    assert Row("work", "peer", (2.0,), (4.0,), **values).met is met


def test_a_row_survives_json() -> None:
    row = Row("work", "peer", (2.0,), (4.0,), goal=2.0, unit="GB", note="why")
    assert row_from_json(json.dumps(asdict(row))) == row


def test_sides_alternate_and_the_first_pair_is_not_counted() -> None:
    order: list[str] = []
    comparison = Comparison("work", "peer", lambda: order.append("product"), lambda: order.append("peer"))
    row = measure_row(comparison, BenchOptions(repeats=3))
    assert order == ["product", "peer", "peer", "product", "product", "peer", "peer", "product"]
    assert len(row.product) == len(row.peer_values) == 3


def test_a_result_that_differs_once_is_not_equal() -> None:
    results = iter([1, 2, 1, 1, 1, 1])
    comparison = Comparison(
        "work", "peer", lambda: next(results), lambda: 1, is_equal=lambda left, right: left == right
    )
    assert measure_row(comparison, BenchOptions(repeats=3)).equal is False


def test_a_row_of_little_time_has_one_pair() -> None:
    row = measure_row(Comparison("work", "peer", lambda: None, lambda: None), BenchOptions(seconds=0))
    assert len(row.product) == 1
