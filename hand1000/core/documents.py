"""The readers of YAML and JSON from outside: whatever the bytes are, they give a value or one line."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

from hand1000.core.errors import Hand1000Error, one_line
from hand1000.core.text import shorten

MAX_YAML_BYTES = 256 << 10
MAX_DEPTH = 50
"""Levels of lists and mappings in each other; settings have five."""
MAX_NODES = 200_000
"""Values of a YAML file, those of an alias as often as it is used."""

_UNUSABLE = re.compile("[\0\ud800-\udfff]")
"""What no name of a file and no text in UTF-8 can hold."""
_UNSUPPORTED_TAGS = ("binary", "omap", "pairs", "set")


def read_yaml(path: str | Path) -> Any:
    """Read a YAML file.

    Raises:
        Hand1000Error: The file cannot be read, is larger than `MAX_YAML_BYTES`, or is not YAML as `parse_yaml` has it.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_YAML_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = one_line(getattr(error, "strerror", None) or error)
        raise Hand1000Error(f"{shorten(str(path), 300)}: cannot be read: {reason}") from error
    return parse_yaml(data, str(path))


def parse_yaml(data: bytes, name: str) -> Any:
    """Return the value of a YAML document.

    It is YAML as `yaml.safe_load` reads it, but a key that is repeated in a mapping is an error, as are an alias within
    its own anchor, tags of bytes and sets, more than `MAX_DEPTH` levels and more than `MAX_NODES` values.

    Args:
        data: The document, UTF-8.
        name: Name of the document in errors.

    Raises:
        Hand1000Error: Not such a document; the message names the line.
    """
    name = shorten(name, 300)
    if len(data) > MAX_YAML_BYTES:
        raise Hand1000Error(f"{name}: longer than {MAX_YAML_BYTES >> 10} KiB; name the right file")
    try:
        loader = _Loader(data.decode("utf-8-sig"))
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except UnicodeDecodeError as error:
        raise Hand1000Error(f"{name}: cannot be read: byte {error.start} is not UTF-8; save it as UTF-8") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f": line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = shorten(one_line(error.problem or error.context or error), 300)
        raise Hand1000Error(f"{name}{place}: not YAML: {problem}") from error
    except yaml.reader.ReaderError as error:
        raise Hand1000Error(f"{name}: not YAML: {error.reason}, at character {error.position}") from error


def parse_json(data: bytes | str, name: str) -> Any:
    """Return a JSON value; a name that is repeated in an object is an error.

    Args:
        data: The value, UTF-8.
        name: Name of its file in errors.

    Raises:
        Hand1000Error: Not JSON, too deep, or with half a surrogate pair, which no file can hold.
    """
    try:
        return load_json(data)
    except json.JSONDecodeError as error:
        raise Hand1000Error(f"{shorten(name, 300)}: line {error.lineno}: not JSON: {error.msg}") from error
    except ValueError as error:
        raise Hand1000Error(f"{shorten(name, 300)}: not JSON: {one_line(error)}") from error


def load_json(data: bytes | str) -> Any:
    """Return a JSON value as `parse_json` does.

    Raises:
        ValueError: Not such a value.
    """
    try:
        value = json.loads(data, object_pairs_hook=_require_unique)
        if ("\\u" in data) if isinstance(data, str) else (b"\\u" in data):
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8") from error
    except UnicodeEncodeError as error:
        raise ValueError("half a surrogate pair, which is no character") from error
    except RecursionError as error:
        raise ValueError("too many levels of lists and objects") from error


def _require_unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"{shorten(name)} is given several times; give it once")
            seen.add(name)
    return value


class _Loader(yaml.SafeLoader):
    """`SafeLoader` with bounds, and errors of its own kind for everything that it cannot construct."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._sizes: dict[int, int] = {}
        """Number of values of each complete node, by its `id`; the nodes live as long as the document."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node, within the bounds."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        mark = event.start_mark
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise yaml.composer.ComposerError(None, None, f"more than {MAX_DEPTH} levels", mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if isinstance(event, yaml.AliasEvent) and id(node) not in self._sizes:
            raise yaml.composer.ComposerError(None, None, "an alias within its own anchor", mark)
        if isinstance(node, yaml.ScalarNode) and _UNUSABLE.search(node.value):
            raise yaml.composer.ComposerError(None, None, "a text with NUL or half a surrogate pair", mark)
        if node is not None and id(node) not in self._sizes:
            children: list[yaml.Node] = []
            if isinstance(node, yaml.MappingNode):
                _require_distinct_keys(node)
                children = [child for pair in node.value for child in pair]
            elif isinstance(node, yaml.SequenceNode):
                children = node.value
            self._sizes[id(node)] = size = 1 + sum(self._sizes[id(child)] for child in children)
            if size > MAX_NODES:
                raise yaml.composer.ComposerError(None, None, f"more than {MAX_NODES:,} values", mark)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Construct a value; what Python cannot make of its text is an error at its place."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, TypeError, AttributeError, LookupError, OverflowError) as error:
            kind = node.tag.rpartition(":")[2]
            text = shorten(str(node.value)) if isinstance(node, yaml.ScalarNode) else "this"
            problem = f"{text!r} is no {kind}; quote it if it is a text"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from error


def _require_distinct_keys(node: yaml.MappingNode) -> None:
    seen = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            if (key.tag, key.value) in seen:
                problem = f"{shorten(key.value)} is given several times; give it once"
                raise yaml.composer.ComposerError(None, None, problem, key.start_mark)
            seen.add((key.tag, key.value))


for _tag in _UNSUPPORTED_TAGS:
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _Loader.construct_undefined)  # type: ignore[type-var]
