"""The history of a training: a table with one row for each epoch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_csv, write_csv


class History:
    """One row for each epoch: {column: number}. Rows may have different columns.

    >>> history = History()
    >>> history.add(0, {"loss/supervised": 0.9})
    >>> history.add(1, {"loss/supervised": 0.7, "dice/deployed": 0.4})
    >>> history.columns
    ['epoch', 'loss/supervised', 'dice/deployed']
    >>> history.series("dice/deployed")
    ([2], [0.4])
    """

    def __init__(self, rows: list[dict[str, float]] | None = None):
        self.rows = rows or []

    @classmethod
    def read_csv(cls, path: str | Path) -> History:
        """Read the file of :meth:`write_csv`, without its empty fields.

        Raises:
            UserError: the file is damaged.
        """
        try:
            rows = read_csv(path)[1]
            return cls([{k: float(v) for k, v in row.items() if v} for row in rows])
        except ValueError as error:
            raise UserError(f"{path} must hold numbers ({error})", fix="remove it") from error

    def add(self, epoch: int, values: Mapping[str, float]) -> None:
        """Append a row; remove rows of this and later epochs, if the training was rolled back."""
        self.rows = [row for row in self.rows if row["epoch"] < epoch]
        self.rows.append({"epoch": epoch, **values})

    @property
    def columns(self) -> list[str]:
        """All columns, in order of appearance."""
        return list(dict.fromkeys(column for row in self.rows for column in row))

    def series(self, column: str) -> tuple[list[float], list[float]]:
        """Return epochs, counted from 1, and values of a column."""
        rows = [row for row in self.rows if column in row]
        return [row["epoch"] + 1 for row in rows], [row[column] for row in rows]

    def write_csv(self, path: str | Path) -> None:
        """Write all rows atomically."""
        columns = self.columns
        write_csv(path, [columns, *([row.get(name, "") for name in columns] for row in self.rows)])


DICE = "Dice on validation patches"
PANELS: tuple[tuple[str, tuple[str, ...]], ...] = (  # title and prefixes of columns
    ("supervised loss", ("loss/supervised",)),
    ("unlabelled terms, unweighted", ("loss/",)),
    ("weight of the term", ("weight/",)),
    (DICE, ("dice/", "trust")),
    ("fraction of voxels: foreground, trusted", ("mask_ratio", "foreground/")),
    ("learning rate", ("learning_rate",)),
)
LOG_SCALE = ("supervised loss", "unlabelled terms, unweighted", "learning rate")


def group_into_panels(history: History) -> list[tuple[str, list[str]]]:
    """Return title and columns of each panel that has any. A column is in the first that fits."""
    panels, remaining = [], history.columns
    for title, prefixes in PANELS:
        columns = [column for column in remaining if column.startswith(prefixes)]
        remaining = [column for column in remaining if column not in columns]
        if columns:
            panels.append((title, columns))
    return panels
