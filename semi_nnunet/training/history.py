"""What happened in every epoch: collected on the device, written as CSV and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_csv, write_atomically, write_csv


class StepRecords:
    """Values of the steps of one epoch, on the device until :meth:`means` copies them at once."""

    def __init__(self) -> None:
        self._values: dict[str, list[torch.Tensor | float]] = {}

    def add(self, name: str, value: torch.Tensor | float) -> None:
        """Note a scalar."""
        self._values.setdefault(name, []).append(
            value.detach() if isinstance(value, torch.Tensor) else value
        )

    def state(self) -> dict[str, list[float]]:
        """The values since the last :meth:`means`, for a checkpoint within an epoch."""
        return {name: [float(one) for one in values] for name, values in self._values.items()}

    def restore(self, state: Mapping[str, Sequence[float]]) -> None:
        """Take over :meth:`state`."""
        self._values = {name: list(values) for name, values in state.items()}

    def means(self) -> dict[str, float]:
        """The mean of each name since the last call; forgets them."""
        means: dict[str, float] = {}
        for name, values in self._values.items():
            tensors = [
                value.float().reshape(()) for value in values if isinstance(value, torch.Tensor)
            ]
            numbers = [float(value) for value in values if not isinstance(value, torch.Tensor)]
            if tensors:
                numbers += torch.stack(tensors).cpu().tolist()
            means[name] = sum(numbers) / len(numbers)
        self._values.clear()
        return means


def total_loss(means: Mapping[str, float]) -> float:
    """The sum of the terms of the loss, each with its weight, of what :meth:`StepRecords.means`
    returns.
    """
    names = [key.removeprefix("loss/") for key in means if key.startswith("loss/")]
    return sum(means[f"loss/{name}"] * means[f"weight/{name}"] for name in names)


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
            raise UserError(f"{path} must hold numbers ({error}). Fix: remove it") from error

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

    def write_picture(self, path: str | Path) -> None:
        """Draw the curves: losses, weights, Dice, and the other diagnostics."""
        figure = draw_history(self)
        write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=90))
        plt.close(figure)


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
COLUMNS = 3


def panels_of(history: History) -> list[tuple[str, list[str]]]:
    """Title and columns of each panel that has any; a column belongs to the first that fits."""
    panels, left = [], history.columns
    for title, prefixes in PANELS:
        columns = [column for column in left if column.startswith(prefixes)]
        left = [column for column in left if column not in columns]
        if columns:
            panels.append((title, columns))
    return panels


def draw_history(history: History) -> Figure:
    """A panel for each kind of curve that occurs.

    The losses and the learning rate have a logarithmic axis where all their values are positive.
    """
    panels = panels_of(history)
    rows = max(1, -(-len(panels) // COLUMNS))
    with matplotlib.rc_context(rc=matplotlib.rcParamsDefault):  # nnU-Net's plot leaves huge fonts
        figure, axes = plt.subplots(
            rows, COLUMNS, figsize=(4.2 * COLUMNS, 3.2 * rows), squeeze=False
        )
        for axis, (title, columns) in zip(axes.flat, panels, strict=False):
            draw_panel(axis, title, {column: history.series(column) for column in columns})
        for axis in list(axes.flat)[max(1, len(panels)) :]:
            axis.remove()
        figure.tight_layout()
    return figure


def draw_panel(
    axis: Axes, title: str, curves: Mapping[str, tuple[list[float], list[float]]]
) -> None:
    """The curves of one panel, labelled by the last part of their column's name."""
    for column, (epochs, values) in curves.items():
        marker = "o" if len(values) < 3 else None
        axis.plot(epochs, values, label=column.split("/", 1)[-1], marker=marker)
    if title in LOG_SCALE and all(value > 0 for _, values in curves.values() for value in values):
        axis.set_yscale("log")
    if title == DICE:
        axis.set_ylim(0, 1)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_title(title, fontsize=10)
    axis.set_xlabel("epoch")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
