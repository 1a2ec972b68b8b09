"""Compare a label with a prediction, and test which error would explain the difference.

Each explanation undoes one error: classes swapped back, the label moved, mirrored, or grown to the
volume of the prediction. If the changed label agrees much better with the prediction, the label
probably has this error. A case that is only hard to segment agrees badly, but no explanation helps.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.ndimage import center_of_mass, distance_transform_edt

from semi_nnunet.evaluation.surfaces import find_bounding_box
from semi_nnunet.reporting.overlays import ANISOTROPIC, find_slice_axis

AXES = "zyx"  # of an array
AS_IT_IS = "as it is"


@dataclass(frozen=True)
class Gap:
    """A slice without a class that the prediction and the label on both sides show.

    Args:
        name: of the class.
        axis: across the slice, 0 to 2.
        number: of the slice, from 1.
        share: from 0 to 1: how well the prediction fills it, less if the class is small there.
    """

    name: str
    axis: int
    number: int
    share: float


@dataclass(frozen=True)
class Disagreement:
    """The difference of a label and a prediction of one case.

    Args:
        overlaps: explanation -> (classes, 3): voxels in both, in the label, in the prediction.
        annotated: for each class whether the case annotates it.
        gap: the clearest one, or None.
        axis: across the slices that are shown.
        slices: for each class the number of the slice with the largest difference, from 1.
    """

    overlaps: Mapping[str, np.ndarray]
    annotated: np.ndarray
    gap: Gap | None
    axis: int
    slices: tuple[int, ...]


def compare_label(
    label: np.ndarray,
    prediction: np.ndarray,
    spacing: Sequence[float],
    classes: Mapping[str, tuple[int, ...]],
    annotated: Collection[str] | None = None,
    ignore: int | None = None,
) -> Disagreement:
    """Compare a label with a prediction of the same voxels.

    >>> label = np.zeros((1, 6, 6), int)
    >>> label[0, 1:4, 1:3] = 1
    >>> disagreement = compare_label(label, np.roll(label, 2, 2), (1, 1, 1), {"organ": (1,)})
    >>> disagreement.overlaps["moved by 2 in x (voxels)"].tolist()
    [[6, 6, 6]]

    Args:
        label, prediction: integers (Z, Y, X).
        spacing: of the axes.
        classes: name of the class or region -> its values.
        annotated: the classes that the label annotates; None: all.
        ignore: value of voxels of the label that do not count, or None.
    """
    is_whole = True
    if ignore is not None:
        counts = label != ignore
        is_whole = bool(counts.all())
        label, prediction = label * counts, prediction * counts
    names = list(classes) if annotated is None else [name for name in classes if name in annotated]
    if annotated is not None:
        known = [value for name in names for value in classes[name]]
        prediction = np.where(np.isin(prediction, known), prediction, 0)
    values = sorted({value for group in classes.values() for value in group})
    size = max(values) + 1
    confusion = _count_pairs(label, prediction, size)
    overlaps = {AS_IT_IS: _sum_classes(confusion, classes)}
    for first, second in _list_confused(confusion, values):
        swapped = confusion.copy()
        swapped[[first, second]] = confusion[[second, first]]
        pair = [_name_value(value, classes) for value in (first, second)]
        overlaps[f"with {' and '.join(pair)} swapped"] = _sum_classes(swapped, classes)
    if is_whole and label.any() and prediction.any():
        for name, changed in _undo_errors(label, prediction, spacing):
            overlaps[name] = _sum_classes(_count_pairs(changed, prediction, size), classes)
    shown = find_slice_axis(spacing)
    return Disagreement(
        overlaps,
        np.array([name in names for name in classes]),
        _find_gap(label, prediction, spacing, {n: classes[n] for n in names}) if is_whole else None,
        shown,
        tuple(
            int(_count_slices(np.isin(label, group) != np.isin(prediction, group), shown).argmax())
            + 1
            for group in classes.values()
        ),
    )


def _count_pairs(label: np.ndarray, prediction: np.ndarray, size: int) -> np.ndarray:
    """Return (size, size): the number of voxels by value of the label and of the prediction."""
    pairs = label.astype(np.int64).ravel() * size + prediction.ravel().astype(np.int64)
    return np.bincount(pairs, minlength=size * size).reshape(size, size)


def _sum_classes(confusion: np.ndarray, classes: Mapping[str, tuple[int, ...]]) -> np.ndarray:
    """Return (classes, 3): voxels in both, in the label, in the prediction."""
    return np.array(
        [
            [
                confusion[np.ix_(group, group)].sum(),
                confusion[list(group)].sum(),
                confusion[:, list(group)].sum(),
            ]
            for group in classes.values()
        ]
    )


def _list_confused(confusion: np.ndarray, values: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield pairs of values that fit the prediction better if they are exchanged."""
    for place, first in enumerate(values):
        for second in values[place + 1 :]:
            if first == 0:
                continue
            same = confusion[first, first] + confusion[second, second]
            if confusion[first, second] + confusion[second, first] > same:
                yield first, second


def _name_value(value: int, classes: Mapping[str, tuple[int, ...]]) -> str:
    """Return the class of a single value, or else "value 2"."""
    return next((name for name, group in classes.items() if group == (value,)), f"value {value}")


# ---- labels with an error undone ----


def _undo_errors(
    label: np.ndarray, prediction: np.ndarray, spacing: Sequence[float]
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield how the label is changed, and the changed label."""
    for axis, name in enumerate(AXES):
        if label.shape[axis] > 1:
            yield f"mirrored along {name}", np.flip(label, axis)
    centres = [np.array(center_of_mass(array > 0)) for array in (prediction, label)]
    steps = np.round(centres[0] - centres[1]).astype(int)
    if steps.any():
        moves = [f"{n} in {AXES[axis]}" for axis, n in enumerate(steps) if n]
        yield f"moved by {' and '.join(moves)} (voxels)", _shift(label, steps)
    box = find_bounding_box((label > 0) | (prediction > 0))
    label = label.copy()
    count = int(np.count_nonzero(prediction))
    smaller = count > np.count_nonzero(label)
    label[box] = _match_volume(label[box], count, spacing)
    yield f"{'grown' if smaller else 'shrunk'} on all sides", label


def _shift(label: np.ndarray, steps: Sequence[int]) -> np.ndarray:
    """Move a label; what enters is background."""
    moved = np.zeros_like(label)
    pairs = [*zip(steps, label.shape, strict=True)]
    into = tuple(slice(max(n, 0), size + min(n, 0)) for n, size in pairs)
    of = tuple(slice(max(-n, 0), size + min(-n, 0)) for n, size in pairs)
    moved[into] = label[of]
    return moved


def _match_volume(label: np.ndarray, count: int, spacing: Sequence[float]) -> np.ndarray:
    """Grow or shrink the foreground evenly on all sides, to about ``count`` voxels.

    New voxels get the class of the nearest labelled one. Voxels of one distance change together.
    """
    inside = label > 0
    change = count - int(np.count_nonzero(inside))
    if not change:
        return label
    affected = ~inside if change > 0 else inside
    widths = [(int(size > 1),) * 2 for size in label.shape]  # a single slice has no neighbours
    padded = np.pad(affected, widths, constant_values=change > 0)
    distances, nearest = distance_transform_edt(padded, sampling=spacing, return_indices=True)
    centre = tuple(
        slice(width, width + n) for (width, _), n in zip(widths, label.shape, strict=True)
    )
    distances, nearest = distances[centre], np.stack([indices[centre] for indices in nearest])
    ranked = np.sort(distances[affected])
    limit = ranked[min(abs(change), len(ranked)) - 1]
    below, within = np.searchsorted(ranked, limit, "left"), np.searchsorted(ranked, limit, "right")
    is_within = abs(change) - below > within - abs(change)
    changed = affected & (distances <= limit if is_within else distances < limit)
    if change < 0:
        return np.where(changed, 0, label)
    return np.where(changed, np.pad(label, widths)[tuple(nearest)], label)


# ---- slices ----


def _count_slices(mask: np.ndarray, axis: int) -> np.ndarray:
    """Return the number of voxels of a mask in each slice across an axis."""
    return np.count_nonzero(mask, axis=tuple({0, 1, 2} - {axis}))


def _find_gap(
    label: np.ndarray,
    prediction: np.ndarray,
    spacing: Sequence[float],
    classes: Mapping[str, tuple[int, ...]],
) -> Gap | None:
    """Return the clearest gap across thick slices, or across any axis if no slices are thick."""
    thick = find_slice_axis(spacing)
    others = max(size for axis, size in enumerate(spacing) if axis != thick)
    axes = [thick] if spacing[thick] >= ANISOTROPIC * others else [0, 1, 2]
    gaps = [
        gap
        for name, group in classes.items()
        for axis in axes
        for gap in _list_gaps(np.isin(label, group), np.isin(prediction, group), name, axis)
    ]
    return max(gaps, key=lambda gap: gap.share, default=None)


def _list_gaps(label: np.ndarray, prediction: np.ndarray, name: str, axis: int) -> Iterator[Gap]:
    """Yield the slices without label between labelled ones in which the class is predicted."""
    sizes, predicted = _count_slices(label, axis), _count_slices(prediction, axis)
    labelled = np.flatnonzero(sizes)
    for before, after in pairwise(labelled):
        for place in range(before + 1, after):
            expected = (sizes[before] + sizes[after]) / 2
            filled = min(1.0, predicted[place] / expected)
            weight = min(1.0, expected / float(np.median(sizes[labelled])))
            if predicted[place]:
                yield Gap(name, axis, int(place) + 1, float(filled * weight))
