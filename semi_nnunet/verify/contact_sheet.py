"""Contact sheet: small pictures of labelled images on the left, of unlabelled ones next to them.

A panel shows the middle slice of an image as nnU-Net reads it, without reorientation. Names are
literal text, never a formula; characters that the font lacks appear as boxes.
"""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from semi_nnunet.raw.description import RawCase, RawDataset
from semi_nnunet.raw.readers import choose_reader, read_with_nnunet
from semi_nnunet.util.files import write_atomically
from semi_nnunet.util.greys import find_grey_window, greys

ROWS = 3
PIXELS = 400  # at most, of the longer side of a picture
PANEL_INCHES, DOTS_PER_INCH = (3.0, 3.5), 110
NAME_CHARACTERS, NAME_LINES, NAME_SIZE = 32, 2, 9  # of a line; points
WORDS_CHARACTERS, WORDS_LINES, WORDS_SIZE = 46, 6, 7
MAX_STRETCH = 4.0  # the greatest ratio of a pixel's sides, for slices of flat voxels


GreyWindow = tuple[float, float]


@dataclass(frozen=True)
class SheetPanel:
    """One image on the sheet.

    Args:
        name: title above it.
        words: text below it.
        slice: (Y, X) or (Y, X, 3), from 0 (black) to 1.
        aspect: height of a pixel, divided by its width.
        window: intensities that are black and white.
    """

    name: str
    words: str
    slice: np.ndarray
    aspect: float
    window: GreyWindow = (0.0, 1.0)


def make_panel(
    raw: RawDataset, case: RawCase, words: str, window: GreyWindow | None = None
) -> SheetPanel:
    """Show the middle slice of a case's first file, in colour if the file has three channels.

    Args:
        raw: the data set.
        case: to show.
        words: text below the picture.
        window: intensities that are black and white; None: those of the case's foreground, or of
            the slice if the case has no label or colours.
    """
    reader = choose_reader(raw.description, case.images)
    voxels, geometry, _ = read_with_nnunet(case.images[0], reader, is_label=False)
    middle = voxels[:, voxels.shape[1] // 2]
    row_step, column_step = (-(-size // PIXELS) for size in middle.shape[1:])
    thinned = middle[:, ::row_step, ::column_step]
    _, row_mm, column_mm = geometry.spacing
    aspect = row_mm * row_step / (column_mm * column_step)
    is_colour = len(middle) == 3
    shown = thinned if is_colour else thinned[:1]
    if is_colour or window is None:
        window = find_grey_window(shown)
    if case.label and not is_colour:
        labels, _, _ = read_with_nnunet(case.label, reader, is_label=True)
        if labels.shape[1:] == voxels.shape[1:]:
            window = find_grey_window(voxels[0], labels[0])
    grey = greys(shown, *window)
    picture = grey.transpose(1, 2, 0) if is_colour else grey[0]
    return SheetPanel(case.case, words, picture, aspect, window)


def share_window(panels: Sequence[SheetPanel]) -> GreyWindow:
    """Return the window that includes those of all panels, for images in the same unit."""
    lows, highs = zip(*(panel.window for panel in panels), strict=True)
    return min(lows), max(highs)


def write_sheet(
    path: Path, labelled: Sequence[SheetPanel], unlabelled: Sequence[SheetPanel]
) -> None:
    """Write the sheet as PNG.

    Args:
        labelled: the first column, at most three.
        unlabelled: the other columns, row by row, at least one.
    """
    figure = draw_sheet(labelled, unlabelled)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the font lacks a character of a name
        save = partial(figure.savefig, format="png", dpi=DOTS_PER_INCH)
        write_atomically(path, save)


def draw_sheet(labelled: Sequence[SheetPanel], unlabelled: Sequence[SheetPanel]) -> Figure:
    """Draw the sheet of :func:`write_sheet`."""
    rows = min(ROWS, max(len(labelled), len(unlabelled)))
    columns = -(-len(unlabelled) // rows)
    width, height = PANEL_INCHES
    figure = Figure(
        figsize=(width * (1 + columns), height * rows),
        layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1),
        facecolor="white",
    )
    grid = figure.subplots(rows, 1 + columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, panel in zip(grid[:, 0], labelled, strict=False):
        draw_panel(axes, panel, "#0072b2")
    for axes, panel in zip(grid[:, 1:].flat, unlabelled, strict=False):
        draw_panel(axes, panel, "#d55e00")
    return figure


def draw_panel(axes: Axes, panel: SheetPanel, colour: str) -> None:
    """Draw one image with its name above and its words below, in a frame of that colour."""
    axes.set_axis_on()
    aspect = min(max(panel.aspect, 1 / MAX_STRETCH), MAX_STRETCH)
    axes.imshow(panel.slice, cmap="gray", vmin=0, vmax=1, aspect=aspect)
    axes.set(xticks=[], yticks=[])
    for side in axes.spines.values():
        side.set(color=colour, linewidth=2)
    name = wrap_text(panel.name, NAME_CHARACTERS, NAME_LINES)
    words = wrap_text(panel.words, WORDS_CHARACTERS, WORDS_LINES)
    bold = {"fontsize": NAME_SIZE, "fontweight": "bold", "color": colour}
    axes.set_title(name, bold, parse_math=False, usetex=False)  # a $ in a name is a $
    axes.set_xlabel(words, fontsize=WORDS_SIZE, parse_math=False, usetex=False)


def wrap_text(text: str, characters: int, lines: int) -> str:
    """Break text into lines; the last one ends with "..." if the text is too long.

    >>> wrap_text("one two three", characters=8, lines=1)
    'one ...'
    """
    return textwrap.fill(text, characters, max_lines=lines, placeholder=" ...")
