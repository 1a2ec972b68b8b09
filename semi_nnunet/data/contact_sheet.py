"""A sheet of small pictures: some labelled images on the left, unlabelled ones beside them.

A picture is the middle slice of an image as nnU-Net reads it: axes that lie otherwise look so.
Names are shown as they are: nothing in them is taken for a formula, and signs that no font has are
boxes.
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

from semi_nnunet.data.image_files import read_with_nnunet
from semi_nnunet.data.integrity import reader_class
from semi_nnunet.data.raw_description import RawCase, RawDataset
from semi_nnunet.util.files import write_atomically
from semi_nnunet.util.greys import greys

ROWS = 3
PIXELS = 400  # at most, of the longer side of a picture
PANEL_INCHES, DOTS_PER_INCH = (3.0, 3.5), 110
NAME_CHARACTERS, NAME_LINES, NAME_SIZE = 32, 2, 9  # of a line; points
WORDS_CHARACTERS, WORDS_LINES, WORDS_SIZE = 46, 6, 7
MOST_STRETCHED = 4.0  # a slice of flat voxels is shown up to that many times longer than wide


@dataclass(frozen=True)
class Picture:
    """One image on the sheet.

    Args:
        name: stands above it.
        words: stand below it.
        slice: (Y, X) or (Y, X, 3), from 0 (black) to 1.
        aspect: height of a pixel, of its width.
    """

    name: str
    words: str
    slice: np.ndarray
    aspect: float


def picture_of(raw: RawDataset, case: RawCase, words: str) -> Picture:
    """The middle slice of a case's first image, of all channels if these are three in one file."""
    reader = reader_class(raw.description, case.images)
    voxels, geometry, _ = read_with_nnunet(case.images[0], reader, is_label=False)
    middle = voxels[:, voxels.shape[1] // 2]
    thinned = middle[:, :: step_of(middle.shape[1]), :: step_of(middle.shape[2])]
    _, row_mm, column_mm = geometry.spacing
    aspect = row_mm * step_of(middle.shape[1]) / (column_mm * step_of(middle.shape[2]))
    is_colour = len(middle) == 3
    grey = windowed(thinned if is_colour else thinned[:1])
    return Picture(case.case, words, grey.transpose(1, 2, 0) if is_colour else grey[0], aspect)


def step_of(size: int) -> int:
    """Every so many rows or columns of that many are shown."""
    return -(-size // PIXELS)


def windowed(image: np.ndarray) -> np.ndarray:
    """Any values as 0 to 1, the outermost 0.5 % cut off."""
    low, high = np.percentile(image, (0.5, 99.5))
    return greys(image, low, high)


def write_sheet(path: Path, labelled: Sequence[Picture], others: Sequence[Picture]) -> None:
    """Write the sheet as PNG.

    Args:
        path: the file.
        labelled: the first column, at most three.
        others: the columns beside it, row by row, at least one.
    """
    figure = draw_sheet(labelled, others)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a sign in a name that the font lacks
        save = partial(figure.savefig, format="png", dpi=DOTS_PER_INCH)
        write_atomically(path, save)


def draw_sheet(labelled: Sequence[Picture], others: Sequence[Picture]) -> Figure:
    """The sheet of :func:`write_sheet`."""
    rows = min(ROWS, max(len(labelled), len(others)))
    columns = -(-len(others) // rows)
    width, height = PANEL_INCHES
    figure = Figure(
        figsize=(width * (1 + columns), height * rows),
        layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1),
        facecolor="white",
    )
    grid = figure.subplots(rows, 1 + columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, picture in zip(grid[:, 0], labelled, strict=False):
        draw(axes, picture, "#0072b2")
    for axes, picture in zip(grid[:, 1:].flat, others, strict=False):
        draw(axes, picture, "#d55e00")
    return figure


def draw(axes: Axes, picture: Picture, colour: str) -> None:
    """One image with its name above and its words below, in a frame of that colour."""
    axes.set_axis_on()
    stretched = min(max(picture.aspect, 1 / MOST_STRETCHED), MOST_STRETCHED)
    axes.imshow(picture.slice, cmap="gray", vmin=0, vmax=1, aspect=stretched)
    axes.set(xticks=[], yticks=[])
    for side in axes.spines.values():
        side.set(color=colour, linewidth=2)
    name = wrapped(picture.name, NAME_CHARACTERS, NAME_LINES)
    words = wrapped(picture.words, WORDS_CHARACTERS, WORDS_LINES)
    bold = {"fontsize": NAME_SIZE, "fontweight": "bold", "color": colour}
    axes.set_title(name, bold, parse_math=False, usetex=False)  # a $ in a name is a $
    axes.set_xlabel(words, fontsize=WORDS_SIZE, parse_math=False, usetex=False)


def wrapped(text: str, characters: int, lines: int) -> str:
    """Broken into lines, the last of which says so if not all has room."""
    return textwrap.fill(text, characters, max_lines=lines, placeholder=" ...")
