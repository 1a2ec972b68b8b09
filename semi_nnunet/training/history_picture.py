"""The picture of a training: its losses, weights, Dice and other curves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from semi_nnunet.training.history import DICE, LOG_SCALE, History, panels_of
from semi_nnunet.util.files import write_atomically

COLUMNS = 3
WIDE, HIGH = 4.2, 3.2  # inches of a panel with what surrounds it
LEFT, RIGHT, BELOW, ABOVE = 0.7, 0.1, 0.5, 0.35  # inches around the axes of a panel


def write_history_picture(history: History, path: str | Path) -> None:
    """Draw the curves into a PNG: losses, weights, Dice, and the other diagnostics."""
    figure = draw_history(history)
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=90))
    plt.close(figure)


def draw_history(history: History) -> Figure:
    """A panel for each kind of curve that occurs.

    The losses and the learning rate have a logarithmic axis where all their values are positive.
    """
    panels = panels_of(history)
    rows = max(1, -(-len(panels) // COLUMNS))
    with matplotlib.rc_context(rc=matplotlib.rcParamsDefault):  # nnU-Net's plot leaves huge fonts
        figure, axes = plt.subplots(
            rows, COLUMNS, figsize=(WIDE * COLUMNS, HIGH * rows), squeeze=False
        )
        for axis, (title, columns) in zip(axes.flat, panels, strict=False):
            draw_panel(axis, title, {column: history.series(column) for column in columns})
        for axis in list(axes.flat)[max(1, len(panels)) :]:
            axis.remove()
        figure.subplots_adjust(  # tight_layout would draw everything twice more to measure it
            left=LEFT / (WIDE * COLUMNS),
            right=1 - RIGHT / (WIDE * COLUMNS),
            bottom=BELOW / (HIGH * rows),
            top=1 - ABOVE / (HIGH * rows),
            wspace=(LEFT + RIGHT) / (WIDE - LEFT - RIGHT),
            hspace=(BELOW + ABOVE) / (HIGH - BELOW - ABOVE),
        )
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
