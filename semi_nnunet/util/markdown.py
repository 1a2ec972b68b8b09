"""Markdown tables that are also readable on a terminal."""

from __future__ import annotations

from collections.abc import Sequence


def table(rows: Sequence[Sequence[str]], numbers: bool = False) -> str:
    """Format rows as a Markdown table with aligned columns.

    >>> print(table([["trainer", "Dice"], ["SemiBCPTrainer", ".9"]], numbers=True))
    | trainer        | Dice |
    |----------------|-----:|
    | SemiBCPTrainer |   .9 |

    Args:
        rows: cells, equally many in each row; the first row is the heading.
        numbers: align all columns but the first to the right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def format_line(row: Sequence[str]) -> str:
        cells = [
            cell.rjust(width) if numbers and column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(cells)} |"

    rule = "|".join(
        "-" * (width + 1) + (":" if numbers and column else "-")
        for column, width in enumerate(widths)
    )
    heading, *body = map(format_line, rows)
    return "\n".join([heading, f"|{rule}|", *body])
