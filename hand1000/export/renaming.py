"""Renaming of weights by rules."""

import re
from collections.abc import Callable, Sequence

Rules = Sequence[tuple[str, str | Callable[[re.Match[str]], str]]]
"""Patterns and their replacements, applied one after the other."""


def rename(name: str, rules: Rules) -> str:
    """Apply the rules to a name."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
