"""Each threat of docs/security.md has a guard and a test that exist."""

import ast
import re

import pytest

from tests.support.short_demo import ROOT

PAGE = (ROOT / "docs/security.md").read_text()
TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def read_threats(page: str) -> list[list[str]]:
    """The rows of the tables of threats: threat, guard and test."""
    tables = re.findall(r"\| threat \| guard \| test \|\n\| --- \| --- \| --- \|\n((?:\|.*\n)+)", page)
    return [[cell.strip() for cell in row.strip("|\n").split("|")] for table in tables for row in table.splitlines()]


THREATS = read_threats(PAGE)


@pytest.mark.parametrize(("threat", "guard", "tests"), THREATS, ids=[row[0][:50] for row in THREATS])
def test_a_threat_has_a_guard_and_a_test(threat: str, guard: str, tests: str) -> None:
    for path in re.findall(r"`([\w./]+/[\w./]*)`", guard):
        assert (ROOT / path).exists(), f"{threat}: {path}"
    named = TEST.findall(tests)
    assert guard and named, threat
    for path, name in named:
        body = ast.parse((ROOT / path).read_text()).body
        assert name in {node.name for node in body if isinstance(node, ast.FunctionDef)}, f"{threat}: {path}::{name}"


def test_every_role_has_threats() -> None:
    roles = re.findall(r"^\| (\w[\w ]+) \| ", PAGE[: PAGE.index("\n## ")], re.MULTILINE)
    titles = " ".join(re.findall(r"^## (.+)$", PAGE, re.MULTILINE)).lower()
    assert len(roles) >= 8 and all(role in titles for role in roles if role != "role")
    assert len(THREATS) >= 40
