"""Tables of text."""

from collections.abc import Sequence


def markdown_table(head: Sequence[str], cells: Sequence[Sequence[str]], numbers: range) -> str:
    """As Markdown; the columns `numbers` stand to the right."""
    rule = ["---:" if column in numbers else "---" for column in range(len(head))]
    return "".join("| " + " | ".join(line) + " |\n" for line in [head, rule, *cells])


def aligned_table(head: Sequence[str], cells: Sequence[Sequence[str]], numbers: range) -> str:
    """As plain text, the columns as wide as they must be."""
    widths = [max(len(line[column]) for line in [head, *cells]) for column in range(len(head))]
    return "".join(
        "  ".join(
            cell.rjust(width) if column in numbers else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        + "\n"
        for line in [head, *cells]
    )
