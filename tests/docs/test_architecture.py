"""Every file, function, setting and command that the documentation names exists."""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from hand1000.config.comparison import ComparisonSettings
from hand1000.config.settings import Settings
from tests.support.short_demo import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "infra/README.md", *sorted((ROOT / "docs").glob("*.md"))]
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text()
FILE = re.compile(
    r"(?<![\w/.])(?:hand1000|tasks|workflows|tests|benchmarks|containers|infra|tooling|models)"
    r"/(?:[\w./-]*\.(?:json|lock|md|png|py|sh|tf|txt|ya?ml)\b|[\w/-]*/)"
)
SYMBOL = re.compile(r"`(?:hand1000|tasks|workflows)(?:\.\w+)+`")
SETTING = re.compile(
    r"`((?:data|captions|stage[123]|generation|compute|evaluation|hand_refiner|imagic)(?:\.(?!html|json)[a-z_]+)+)"
)


TAG = re.compile(r'"(hand1000\.[a-z_.]+)"')


@functools.cache
def tags() -> tuple[str, ...]:
    """The tags in MLflow, and the prefixes of tags, which end in a dot."""
    return tuple(tag for path in (ROOT / "hand1000/registry").glob("*.py") for tag in TAG.findall(path.read_text()))


@functools.cache
def defined_names(path: Path) -> set[str]:
    """The functions, classes, methods (`Class.method`) and constants of a Python file."""

    def names(body: list[ast.stmt], prefix: str = "") -> Iterator[str]:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                yield prefix + node.name
            if isinstance(node, ast.ClassDef):
                yield from names(node.body, f"{node.name}.")
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            yield from (prefix + target.id for target in targets if isinstance(target, ast.Name))

    return set(names(ast.parse(path.read_text()).body))


def symbol_exists(dotted: str) -> bool:
    if any(dotted == tag or (tag.endswith(".") and dotted.startswith(tag)) for tag in tags()):
        return True
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:length])
        if path.with_suffix(".py").is_file():
            return length == len(parts) or ".".join(parts[length:]) in defined_names(path.with_suffix(".py"))
        if path.is_dir():
            return length == len(parts)
    return False


def setting_exists(dotted: str) -> bool:
    model: type[BaseModel] = ComparisonSettings if dotted.startswith(("hand_refiner", "imagic")) else Settings
    for part in dotted.split("."):
        if not (isinstance(model, type) and issubclass(model, BaseModel)) or part not in model.model_fields:
            return False
        model = model.model_fields[part].annotation  # type: ignore[assignment]
    return True


def where_rows() -> list[tuple[str, str, str]]:
    """The rows of the table "Where is ...?": question, file, name in it."""
    section = ARCHITECTURE.split("## Where is ...?")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    return [(question, file.strip("`"), name.strip("`")) for question, file, name in rows[2:]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_a_page_names_exists(page: Path) -> None:
    text = page.read_text()
    assert [name for name in SYMBOL.findall(text) if not symbol_exists(name.strip("`"))] == []
    assert [
        name for name in FILE.findall(text) if not any((base / name).exists() for base in (ROOT, page.parent))
    ] == []
    assert [name for name in SETTING.findall(text) if not setting_exists(name)] == []


def test_at_least_twenty_questions_are_answered() -> None:
    assert len({question for question, _, _ in where_rows()}) >= 20


@pytest.mark.parametrize(("question", "file", "name"), where_rows(), ids=lambda value: value.replace("`", ""))
def test_the_place_that_answers_a_question_exists(question: str, file: str, name: str) -> None:
    assert (ROOT / file).is_file(), question
    if file.endswith(".py"):
        assert name in defined_names(ROOT / file), question
    elif file.endswith(".yaml"):
        assert name in yaml.safe_load((ROOT / file).read_text()), question
    else:
        assert name in (ROOT / file).read_text(), question


def test_missing_names_are_detected() -> None:
    assert symbol_exists("hand1000.core.rng.derived_seed") and not symbol_exists("hand1000.core.rng.missing")
    assert not symbol_exists("hand1000.missing.derived_seed")
    assert setting_exists("stage3.lora.rank") and not setting_exists("stage3.lora.missing")


def test_every_package_is_in_the_table() -> None:
    packages = {path.parent.name for path in (ROOT / "hand1000").glob("*/__init__.py")}
    assert {name for name in packages if f"`hand1000/{name}/`" not in ARCHITECTURE} == set()
