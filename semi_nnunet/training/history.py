"""What happened in every epoch, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_csv, write_csv


class History:
    """One row an epoch: {column: number}. Rows may have different columns."""

    def __init__(self, rows: list[dict[str, float]] | None = None):
        self.rows = rows or []

    @classmethod
    def read_csv(cls, path: str | Path) -> History:
        """What :meth:`write_csv` wrote; empty fields are left out.

        Raises:
            UserError: it is damaged.
        """
        try:
            rows = read_csv(path)[1]
            return cls([{k: float(v) for k, v in row.items() if v} for row in rows])
        except ValueError as error:
            raise UserError(f"{path} must hold numbers ({error})", fix="remove it") from error

    def add(self, epoch: int, values: Mapping[str, float]) -> None:
        """Append a row; a row of the same or a later epoch (of a run that was rolled back) goes."""
        self.rows = [row for row in self.rows if row["epoch"] < epoch]
        self.rows.append({"epoch": epoch, **values})

    @property
    def columns(self) -> list[str]:
        """Every column that occurs, in order of appearance."""
        return list(dict.fromkeys(column for row in self.rows for column in row))

    def series(self, column: str) -> tuple[list[float], list[float]]:
        """Epochs, from 1 as people count, and values of a column."""
        rows = [row for row in self.rows if column in row]
        return [row["epoch"] + 1 for row in rows], [row[column] for row in rows]

    def write_csv(self, path: str | Path) -> None:
        """Write every row, atomically."""
        columns = self.columns
        write_csv(path, [columns, *([row.get(name, "") for name in columns] for row in self.rows)])


DICE = "Dice on validation patches"
PANELS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("supervised loss", ("loss/supervised",)),
    ("unlabelled terms, unweighted", ("loss/",)),
    ("weight of the term", ("weight/",)),
    (DICE, ("dice/", "trust")),
    ("fraction of voxels: foreground, trusted", ("mask_ratio", "foreground/")),
    ("learning rate", ("learning_rate",)),
)
LOG_SCALE = ("supervised loss", "unlabelled terms, unweighted", "learning rate")


def panels_of(history: History) -> list[tuple[str, list[str]]]:
    """Title and columns of each panel that has any; a column belongs to the first that fits."""
    panels, left = [], history.columns
    for title, prefixes in PANELS:
        columns = [column for column in left if column.startswith(prefixes)]
        left = [column for column in left if column not in columns]
        if columns:
            panels.append((title, columns))
    return panels
