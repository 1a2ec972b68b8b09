"""Markdown tables that are also readable on a terminal, and texts of strangers in Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from semi_nnunet.util.errors import printable


def plain(text: object) -> str:
    r"""Return a text, such as a name from somebody's file, so that Markdown shows it as it is.

    It becomes one line without HTML, links, pictures, code and new cells of a table.

    >>> plain("a <b>|[c](d)\n# e")
    'a &lt;b>\\|\\[c](d) # e'
    """
    line = printable(" ".join(str(text).split()))
    return re.sub(r"([|\[`])", r"\\\1", line.replace("<", "&lt;"))


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
