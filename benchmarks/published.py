"""Parts of the authors' published scripts, taken from a checkout of their repository as they are.

A whole script needs more than its parts, such as CUDA, weights from the network or torchvision. The file is parsed; of
its statements only the named functions and assignments are executed.
"""

import ast
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

REPOSITORY = "Hand1000"
"""Name of the checkout in the folder of the peers."""


def find_script(peers: Path | None, name: str) -> Path | None:
    """Return a script of the authors' repository; None without a checkout."""
    path = peers / REPOSITORY / name if peers else None
    return path.resolve() if path and path.is_file() else None


def load_parts(script: Path, names: Collection[str], modules: Mapping[str, Any]) -> dict[str, Any]:
    """Execute the functions and assignments of a script that have one of `names`, and return them by name.

    Args:
        script: The script.
        names: Names of functions and variables at its top level.
        modules: What the script imports, by the names that it uses.

    Raises:
        KeyError: The script lacks one of `names`.
    """

    def is_named(node: ast.stmt) -> bool:
        if isinstance(node, ast.Assign):
            return any(isinstance(target, ast.Name) and target.id in names for target in node.targets)
        return isinstance(node, ast.FunctionDef) and node.name in names

    tree = ast.parse(script.read_text(encoding="utf-8"), str(script))
    values = dict(modules)
    exec(compile(ast.Module([node for node in tree.body if is_named(node)], []), str(script), "exec"), values)
    return {name: values[name] for name in names}
