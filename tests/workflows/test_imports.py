"""What a workflow imports before it computes: what a repeated run has to wait for."""

import ast
from pathlib import Path

from tests.support.imported import HEAVY, import_modules
from tests.support.short_demo import ROOT


def imports_of_recalls(path: Path) -> set[str]:
    """The modules that a task imports before and after its body: those of the functions `load` and `finish`."""
    tree = ast.parse(path.read_text())
    decorators = [
        call
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for call in function.decorator_list
        if isinstance(call, ast.Call)
    ]
    called = {
        keyword.value.id
        for call in decorators
        for keyword in call.keywords
        if keyword.arg in ("load", "finish") and isinstance(keyword.value, ast.Name)
    }
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name in called]
    return {
        node.module
        for function in functions
        for node in ast.walk(function)
        if isinstance(node, ast.ImportFrom) and node.module
    }


def test_workflows_import_no_heavy_package() -> None:
    names = {f"workflows.{path.stem}" for path in (ROOT / "workflows").glob("[a-z]*.py")}
    assert len(names) >= 8 and not import_modules(names) & HEAVY


def test_recalled_tasks_import_no_heavy_package() -> None:
    """Also those of the workflows that no test repeats."""
    names = set().union(*(imports_of_recalls(path) for path in (ROOT / "tasks").glob("*.py")))
    assert {"hand1000.evaluation.identity", "hand1000.registry.recorded", "hand1000.data.captioning"} <= names
    assert not import_modules(names) & HEAVY
