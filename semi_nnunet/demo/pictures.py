"""The two pictures of the demo: curves of both trainings, and overlays of test cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from semi_nnunet.training.history import History
from semi_nnunet.util.greys import greys

METHOD_COLOURS = ("#6b7280", "#0072b2", "#d55e00")  # the first is the baseline
ORGAN_COLOURS = ("#e69f00", "#56b4e9", "#f0479b", "#009e73", "#f0e442")  # safe for colour blindness
OPACITY = 0.55
SMALL, MEDIUM = 9, 11
MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class PictureRow:
    """One test case with its reference and the prediction of each method.

    Args:
        title: label of the row.
        image: (z, y, x).
        reference: labels (z, y, x).
        predictions: {method: labels (z, y, x)}.
        dice: {method: mean over the organs}.
    """

    title: str
    image: np.ndarray
    reference: np.ndarray
    predictions: Mapping[str, np.ndarray]
    dice: Mapping[str, float]


def format_gain(value: float) -> str:
    """Return a difference with its sign.

    >>> format_gain(0.0123)
    '+0.012'
    """
    rounded = round(value, 3) + 0.0  # no negative zero
    return f"{'+' if rounded >= 0 else MINUS}{abs(rounded):.3f}"


def draw_curves(histories: Mapping[str, History]) -> Figure:
    """Draw Dice, losses, consistency weight and pseudo-label foreground over the epochs.

    Args:
        histories: {method: its history}; the baseline first.
    """
    figure = Figure(
        figsize=(10, 7), layout=ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.12), facecolor="white"
    )
    dice, loss, consistency, foreground = figure.subplots(2, 2).flat
    for (method, history), colour in zip(histories.items(), METHOD_COLOURS, strict=False):
        _draw_line(dice, history, "dice/deployed", colour, method)
        _draw_line(loss, history, "loss/supervised", colour, method)
        label = f"pseudo labels, {method}"
        _draw_line(foreground, history, "foreground/pseudo_label", colour, label)
    last, colour = list(histories.values())[-1], METHOD_COLOURS[len(histories) - 1]
    _draw_line(foreground, last, "foreground/labelled", METHOD_COLOURS[0], "labels")
    _draw_consistency(consistency, last, colour)
    dice.set_ylim(0, 1)
    _start_at_zero(foreground)
    titles = {
        dice: "Dice on patches of the labelled cases",
        loss: "supervised loss (cross-entropy \N{MINUS SIGN} Dice)",
        consistency: "consistency of student and teacher",
        foreground: "share of foreground voxels",
    }
    for axis, title in titles.items():
        _finish_axis(axis, title)
    return figure


def _draw_line(axis: Axes, history: History, column: str, colour: str, label: str) -> None:
    epochs, values = history.series(column)
    if epochs:
        marker = "o" if len(epochs) < 3 else None
        axis.plot([e + 1 for e in epochs], values, color=colour, label=label, lw=2, marker=marker)


def _start_at_zero(axis: Axes) -> None:
    """Set limits from zero to well above the curves, which leaves room for the legend."""
    lines = [np.asarray(line.get_ydata(), dtype=float) for line in axis.lines]
    highest = max((float(values.max()) for values in lines if values.size), default=0.0)
    axis.set_ylim(0, 1.35 * highest or 1)


def _draw_consistency(axis: Axes, history: History, colour: str) -> None:
    """Draw the unweighted term on the left axis, its weight on the right one."""
    _draw_line(axis, history, "loss/consistency", colour, "consistency loss (left)")
    right = axis.twinx()
    epochs, weights = history.series("weight/consistency")
    right.plot([e + 1 for e in epochs], weights, color="black", lw=1.5, ls="--")
    for side in (axis, right):
        _start_at_zero(side)
    right.tick_params(labelsize=SMALL)
    right.spines["top"].set_visible(False)
    axis.plot([], [], color="black", lw=1.5, ls="--", label="its weight (right)")


def _finish_axis(axis: Axes, title: str) -> None:
    axis.set_title(title, fontsize=MEDIUM, loc="left", fontweight="bold")
    axis.set_xlabel("epoch", fontsize=SMALL)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.tick_params(labelsize=SMALL)
    axis.grid(alpha=0.25)
    axis.spines["top"].set_visible(False)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=SMALL, frameon=False, ncols=2 if axis.get_ylim()[0] == 0 else 1)


def draw_overlays(rows: Sequence[PictureRow], organs: Mapping[int, str]) -> Figure:
    """Draw a row for each case: the image, the reference, and each method with its Dice.

    Rows show the slice with the most reference foreground.

    Args:
        rows: the cases, from top to bottom.
        organs: {label: name}.
    """
    columns = 2 + len(rows[0].predictions)
    figure = Figure(
        figsize=(2.7 * columns + 0.4, 2.95 * len(rows) + 0.6),
        layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.08),
        facecolor="white",
    )
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for row_axes, row in zip(axes, rows, strict=True):
        _draw_row(row_axes, row, tuple(organs))
    for axis, title in zip(axes[0], ("image", "reference", *rows[0].predictions), strict=True):
        axis.set_title(title, fontsize=MEDIUM, fontweight="bold")
    handles = [
        Patch(color=ORGAN_COLOURS[i % len(ORGAN_COLOURS)], label=name)
        for i, name in enumerate(organs.values())
    ]
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=len(handles),
        fontsize=MEDIUM,
        frameon=False,
        title="organs of the phantom",
    )
    return figure


def _draw_row(axes: Sequence[Axes], row: PictureRow, labels: Sequence[int]) -> None:
    z = int((row.reference > 0).sum((1, 2)).argmax())
    image = row.image[z].astype(float)
    low, high = np.percentile(image, (1, 99.5))
    grey = greys(image, low, high)
    baseline = next(iter(row.dice.values()))
    panels = [(None, ""), (row.reference[z], f"slice {z + 1} of {len(row.image)}")]
    for i, (method, prediction) in enumerate(row.predictions.items()):
        dice = row.dice[method]
        gain = f" ({format_gain(dice - baseline)})" if i else ""
        panels.append((prediction[z], f"Dice {dice:.3f}{gain}"))
    for axis, (segmentation, caption) in zip(axes, panels, strict=True):
        axis.imshow(colour_organs(grey, segmentation, labels), interpolation="nearest")
        axis.set(xticks=[], yticks=[])
        axis.set_xlabel(caption, fontsize=MEDIUM)
        axis.spines[:].set_visible(False)
    axes[0].set_ylabel(row.title, fontsize=MEDIUM)


def colour_organs(
    grey: np.ndarray, segmentation: np.ndarray | None, labels: Sequence[int]
) -> np.ndarray:
    """Lay the organs in colour over a grey slice (y, x) in 0 to 1; return (y, x, 3)."""
    picture = np.repeat(grey[..., None], 3, axis=-1)
    if segmentation is None:
        return picture
    for i, label in enumerate(labels):
        colour = np.array(to_rgb(ORGAN_COLOURS[i % len(ORGAN_COLOURS)]))
        organ = segmentation == label
        picture[organ] = (1 - OPACITY) * picture[organ] + OPACITY * colour
    return picture
