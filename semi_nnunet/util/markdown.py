"""Tables in Markdown that are readable on a terminal, too."""

from __future__ import annotations

from collections.abc import Sequence


def table(rows: Sequence[Sequence[str]], numbers: bool = False) -> str:
    """A table with columns of even width.

    Args:
        rows: of cells, as many in each; the first one is the heading.
        numbers: all columns but the first hold numbers, which end at the right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def line(row: Sequence[str]) -> str:
        cells = [
            cell.rjust(width) if numbers and column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(cells)} |"

    rule = "|".join(
        "-" * (width + 1) + (":" if numbers and column else "-")
        for column, width in enumerate(widths)
    )
    heading, *others = map(line, rows)
    return "\n".join([heading, f"|{rule}|", *others])
