"""Tables of text, as Markdown or as aligned plain text."""

from collections.abc import Container, Sequence
from dataclasses import dataclass

from hand1000.core.errors import escape_unprintable


class Bold(str):
    """A table cell that Markdown and HTML emphasize."""


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        header: Titles of the columns.
        rows: Cells of the body, one sequence per row.
        numeric: Indices of the columns that are aligned to the right.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    numeric: Container[int] = ()

    def markdown(self) -> str:
        """The table in Markdown. No cell can break out of its column or add HTML of its own."""
        rule = ["---:" if column in self.numeric else "---" for column in range(len(self.header))]
        lines = [[escape_markdown(cell) for cell in self.header], rule]
        lines += [[escape_markdown(cell) for cell in row] for row in self.rows]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)

    def text(self) -> str:
        """The table in plain text, with columns as wide as their longest cell, and control characters as escapes."""
        lines = [[escape_unprintable(str(cell)) for cell in row] for row in (self.header, *self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "".join(f"{'  '.join(map(self._align, range(len(line)), line, widths)).rstrip()}\n" for line in lines)

    def _align(self, column: int, cell: str, width: int) -> str:
        return cell.rjust(width) if column in self.numeric else cell.ljust(width)


def format_number(value: float | None) -> str:
    """Four significant digits; a dash for a missing value."""
    return "–" if value is None else f"{value:.4g}"


def escape_markdown(cell: object) -> str:
    """The text of a cell on one line, without characters that Markdown would read as a column or as HTML."""
    text = " ".join(str(cell).split()).replace("|", "\\|").replace("<", "&lt;")
    return f"**{text}**" if isinstance(cell, Bold) else text
