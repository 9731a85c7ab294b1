"""Lays out rows of cells in columns for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

Cell = str | int | float | bool | None


def table(headers: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """Lines with aligned columns under their headers; numbers stand at the right."""
    texts = [[_text(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headers, *texts, strict=True)]
    right = [bool(rows) and all(_is_number(row[i]) for row in rows) for i in range(len(headers))]

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if at_right else cell.ljust(width)
            for cell, width, at_right in zip(cells, widths, right, strict=True)
        )
        return "  ".join(padded).rstrip()

    return "\n".join([line(headers), *map(line, texts)])


def _is_number(cell: Cell) -> bool:
    return isinstance(cell, int | float) and not isinstance(cell, bool)


def _text(cell: Cell) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    # A queue's name is an application's: it must not be able to move the cursor.
    return "".join(c if c.isprintable() else "?" for c in str(cell))
