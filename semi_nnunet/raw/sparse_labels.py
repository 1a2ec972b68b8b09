"""Sparse labels made from full ones: some slices, scribbles, points or boxes; the rest is ignored.

Scribbles, points and boxes are drawn slice by slice, as people annotate, for every class that the
slice shows and for its background. As in ScribbleBench (Gotkowski et al. 2024, arXiv:2403.12834)
some scribbles are inside a class and others follow its border. Differs from it: inner scribbles are
parts of skeletons instead of random curves, and every slice is annotated.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import binary_erosion, distance_transform_edt, label, maximum
from skimage.morphology import skeletonize

from semi_nnunet.raw.classes import get_declared_values
from semi_nnunet.raw.readers import choose_reader
from semi_nnunet.util.errors import Problem, UserError, shorten_reason
from semi_nnunet.util.names import list_first

IGNORE = "ignore"  # nnU-Net's name of the label of voxels that do not count
NEIGHBOURS = tuple(step for step in product((-1, 0, 1), repeat=2) if step != (0, 0))
INNER = 0.5  # depth of inner voxels, relative to the deepest one of their class


@dataclass(frozen=True)
class Sparsity:
    """How much of each label stays.

    Args:
        kind: "slices", "scribbles", "points" or "box".
        amount: fraction of the slices; share of each line; number of points for each class and
            slice; edge of a box, relative to the slice.
    """

    kind: str
    amount: float

    def __str__(self) -> str:
        return f"{self.kind}={self.amount:g}"


@dataclass(frozen=True)
class _Amount:
    default: float | None
    rule: str
    is_valid: Callable[[float], bool]


def _is_share(value: float) -> bool:
    return 0 < value <= 1


AMOUNTS = {
    "slices": _Amount(None, "a fraction of the slices above 0 and at most 1", _is_share),
    "scribbles": _Amount(0.5, "a share of each line above 0 and at most 1", _is_share),
    "points": _Amount(
        1, "a whole number of points from 1", lambda value: value >= 1 and value == int(value)
    ),
    "box": _Amount(0.1, "an edge relative to the slice above 0 and at most 1", _is_share),
}


def parse_sparsity(text: str) -> Sparsity:
    """Parse KIND or KIND=AMOUNT.

    >>> str(parse_sparsity("slices=0.1")), str(parse_sparsity("points"))
    ('slices=0.1', 'points=1')

    Raises:
        UserError: the kind is unknown, or the amount is missing or invalid.
    """
    kind, has_amount, amount = text.partition("=")
    if kind not in AMOUNTS:
        raise UserError(
            f"--sparse must be {', '.join(AMOUNTS)} or one of them with =AMOUNT, got {text!r}",
            fix="for example --sparse scribbles",
        )
    known = AMOUNTS[kind]
    try:
        value = float(amount) if has_amount else known.default
        if value is None or not np.isfinite(value) or not known.is_valid(value):
            raise ValueError
    except ValueError:
        example = 0.1 if known.default is None else known.default
        raise UserError(
            f"--sparse {kind} needs {known.rule}, got {repr(amount) if amount else 'none'}",
            fix=f"for example --sparse {kind}={example:g}",
        ) from None
    return Sparsity(kind, value)


def declare_ignore_label(description: Mapping[str, Any]) -> dict[str, Any]:
    """Return a dataset.json that has nnU-Net's ignore label, as the highest value.

    >>> declare_ignore_label({"labels": {"background": 0, "organ": [1, 2]}})["labels"]["ignore"]
    3
    """
    labels = dict(description["labels"])
    labels.setdefault(IGNORE, max(get_declared_values(labels)) + 1)
    return {**description, "labels": labels}


# ---- one label ----


def make_sparse(
    full: np.ndarray, sparsity: Sparsity, ignore: int, rng: np.random.Generator, axis: int = 0
) -> np.ndarray:
    """Return a label in which only some voxels are annotated; the others are ignored.

    >>> full = np.repeat([[[0, 1]]], 4, axis=0)
    >>> make_sparse(full, Sparsity("slices", 0.25), 9, np.random.default_rng(0)).ravel().tolist()
    [9, 9, 9, 9, 0, 1, 9, 9]

    Args:
        full: label (Z, Y, X); its own ignored voxels stay ignored.
        ignore: value of ignored voxels.
        rng: source of all random numbers.
        axis: of the slices.
    """
    slices = np.moveaxis(full, axis, 0)
    kept = np.zeros(slices.shape, bool)
    if sparsity.kind == "slices":
        kept[space_slices(len(slices), sparsity.amount, rng)] = True
    else:
        draw = {"scribbles": draw_scribbles, "points": draw_points, "box": draw_box}[sparsity.kind]
        for index, classes in enumerate(slices):
            for value in np.unique(classes[classes != ignore]):
                kept[index] |= draw(classes == value, sparsity.amount, rng)
    return np.where(np.moveaxis(kept, 0, axis), full, ignore).astype(full.dtype)


def space_slices(number: int, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """Choose evenly spaced slices with a random start; at least one."""
    count = max(1, round(fraction * number))
    return ((np.arange(count) + rng.random()) * number / count).astype(int)


def draw_scribbles(mask: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Draw two lines in each component of a mask (Y, X).

    They are parts of its skeleton and of the outline of its inner voxels, which follows its border.
    A part is the share of a line's voxels that is nearest along it to a random start.
    """
    components, count = label(mask, np.ones((3, 3)))
    deepest = maximum(depth := measure_depth(mask), components, range(count + 1))
    inner = mask & (depth >= INNER * np.asarray(deepest)[components])
    outline, drawn = inner & ~binary_erosion(inner), np.zeros(mask.shape, bool)
    for line in (skeletonize(mask), outline):
        for number in range(1, count + 1):
            voxels = np.argwhere(line & (components == number))
            if len(voxels):  # a tiny component has no skeleton
                drawn[tuple(np.transpose(walk(voxels, share, rng)))] = True
    return drawn


def walk(voxels: np.ndarray, share: float, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Return the share of connected voxels (N, 2) that a walk from a random one reaches first."""
    line = [(int(y), int(x)) for y, x in voxels]
    start = line[rng.integers(len(line))]
    remaining = {*line} - {start}
    front, reached = deque([start]), [start]
    count = max(1, round(share * len(line)))
    while front and len(reached) < count:
        y, x = front.popleft()
        near = [(y + dy, x + dx) for dy, dx in NEIGHBOURS if (y + dy, x + dx) in remaining]
        remaining.difference_update(near)
        front += near
        reached += near
    return reached[:count]


def draw_points(mask: np.ndarray, number: float, rng: np.random.Generator) -> np.ndarray:
    """Draw points in the inner part of a mask (Y, X): all of it, if it has fewer voxels."""
    depth, drawn = measure_depth(mask), np.zeros(mask.shape, bool)
    inner = np.argwhere(depth >= INNER * depth.max())
    chosen = rng.permutation(len(inner))[: int(number)]
    drawn[tuple(inner[chosen].T)] = True
    return drawn


def draw_box(mask: np.ndarray, edge: float, rng: np.random.Generator) -> np.ndarray:
    """Draw a box around a random voxel of a mask (Y, X); it also shows the classes next to it."""
    voxels, drawn = np.argwhere(mask), np.zeros(mask.shape, bool)
    sides = [max(1, round(edge * size)) for size in mask.shape]
    starts = [
        min(max(int(middle) - side // 2, 0), size - side)
        for middle, side, size in zip(
            voxels[rng.integers(len(voxels))], sides, mask.shape, strict=True
        )
    ]
    drawn[tuple(slice(a, a + side) for a, side in zip(starts, sides, strict=True))] = True
    return drawn


def measure_depth(mask: np.ndarray) -> np.ndarray:
    """Return the distance of each voxel of a mask to the outside, which begins at the border."""
    depth: np.ndarray = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    return depth


# ---- the labels of a data set ----


class SparseLabelWriter:
    """Writes sparse labels instead of full ones, each with its own random numbers.

    Args:
        sparsity: how much of each label stays.
        description: dataset.json of the full labels.
        seed: of all labels; a case gets the same label whatever other cases there are.

    Attributes:
        problems: everything that is wrong with labels written so far.
    """

    def __init__(self, sparsity: Sparsity, description: Mapping[str, Any], seed: int):
        self.sparsity, self.seed = sparsity, seed
        self.description = declare_ignore_label(description)
        self.ignore = int(self.description["labels"][IGNORE])
        self.problems: list[Problem] = []
        self._full, self._sparse = set[int](), set[int]()

    def write(self, case: str, source: Path, target: Path) -> None:
        """Write the sparse label of a case; a problem instead if its full label cannot be used."""
        reader = choose_reader(dict(self.description), [str(source)])()
        try:
            array, properties = reader.read_seg(str(source))
        except Exception as error:
            defect = f"cannot be read: {shorten_reason(error)}"
            self.problems.append(Problem(str(source), defect, "copy the file again"))
            return
        full = array[0].astype(np.int64)
        values = {int(value) for value in np.unique(full)}
        axis = find_thickest_axis(properties["spacing"], full.shape)
        if problem := self._find_problem(values, full.shape[axis]):
            self.problems.append(Problem(str(source), *problem))
            return
        rng = np.random.default_rng([self.seed, zlib.crc32(case.encode())])
        sparse = make_sparse(full, self.sparsity, self.ignore, rng, axis)
        self._full |= values
        self._sparse |= {int(value) for value in np.unique(sparse)}
        target.parent.mkdir(parents=True, exist_ok=True)
        reader.write_seg(sparse, str(target), properties)

    def _find_problem(self, values: set[int], slices: int) -> tuple[str, str] | None:
        declared = get_declared_values(self.description["labels"])
        if undeclared := sorted(values - declared):
            rule = f"its values must be declared in dataset.json, got {list_first(undeclared)}"
            return rule, "correct the label, or declare its class"
        if values == {self.ignore}:
            return "all its voxels are ignored", "remove the case, or annotate it"
        if self.sparsity.kind == "slices" and slices == 1:
            return "is a single slice, of which no part can be chosen", "--sparse scribbles"
        return None

    def find_lost_classes(self) -> Iterator[Problem]:
        """Yield a problem for each class that is annotated in no label, but was before."""
        for value in sorted(self._full - self._sparse - {self.ignore}):
            yield Problem(
                f"label value {value}",
                f"no annotated voxel of it is left with {self.sparsity}",
                "annotate more, keep more cases (--labelled), or choose another --seed",
            )


def find_thickest_axis(spacing: Any, shape: tuple[int, ...]) -> int:
    """Return the axis across which the slices are thickest; the first of equal ones.

    >>> find_thickest_axis((1.0, 1.0, 5.0), (64, 64, 20))
    2
    """
    if shape[0] == 1:
        return 0
    return int(np.argmax(np.round(np.asarray(spacing, dtype=float), 4)))
