"""Rotation, scaling, crop and mirroring of a whole batch, as nnU-Net does them sample by sample.

The parameters are known on the host before anything is launched, so that samples which nothing
changes cost a copy, and nothing waits for the device.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import reduce

import torch
from torch.nn import functional as F

SCORES = 1000  # float16 rounds labels' scores out of so many, which makes near ties exact ones


def crop_centre(x: torch.Tensor, size: Sequence[int], value: float) -> torch.Tensor:
    """The middle of ``x`` (B, C, *spatial), padded with ``value`` where it is too small; a copy."""
    padding: list[int] = []
    for axis, (edge, wanted) in enumerate(zip(x.shape[2:], size, strict=True), start=2):
        start = edge // 2 - wanted // 2
        begin, end = max(start, 0), min(edge, max(start, 0) + wanted)
        x = x.narrow(axis, begin, end - begin)
        before = max(-start, 0)
        padding = [before, wanted - (end - begin) - before, *padding]
    if any(padding):
        return F.pad(x, padding, value=value)
    return x.clone(memory_format=torch.contiguous_format)


def sampling_matrix(
    affine: Sequence[Sequence[float]], shape: Sequence[int], size: Sequence[int]
) -> list[list[float]]:
    """The matrix (spatial axes, spatial axes + 1) that :func:`torch.nn.functional.affine_grid`
    wants.

    Args:
        affine: from a voxel's place in the result to its place in the source, both relative to the
            centre, in voxels; axes in the order of the tensor.
        shape: spatial, of the source.
        size: spatial, of the result.
    """
    rows = [
        [value * wanted / edge for value, wanted in zip(row, size, strict=True)][::-1]
        for row, edge in zip(affine, shape, strict=True)
    ]
    return [[*row, 0.0] for row in rows[::-1]]


def sampling_grid(matrices: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Where the voxels of the result lie in the source.

    What :func:`torch.nn.functional.affine_grid` returns, in a third of its time on a CPU: of each
    axis of the result a vector, and their sums.

    Args:
        matrices: (n, axes, axes + 1), see :func:`sampling_matrix`.
        size: spatial, of the result.

    Returns:
        (n, *size, axes), as :func:`torch.nn.functional.grid_sample` wants it.
    """
    grid = matrices.new_empty((matrices.shape[0], *size, len(size)))
    for row in range(len(size)):
        terms = [matrices[:, row, -1:]]
        for axis, edge in enumerate(size):
            centred = torch.arange(1 - edge, edge, 2, device=matrices.device) / edge
            steps = matrices[:, row, len(size) - 1 - axis, None] * centred
            terms.append(steps)
        shapes = [[1] * len(size), *_one_axis_each(size)]
        views = [term.view(-1, *shape) for term, shape in zip(terms, shapes, strict=True)]
        *few, last = views
        torch.add(sum(few[1:], few[0]), last, out=grid[..., row])
    return grid


def _one_axis_each(size: Sequence[int]) -> list[list[int]]:
    """For each axis the shape that spreads a vector along it."""
    return [
        [edge if axis == at else 1 for at in range(len(size))] for axis, edge in enumerate(size)
    ]


def resample_image(
    x: torch.Tensor, grid: torch.Tensor, value: float = 0.0, mode: str = "bilinear"
) -> torch.Tensor:
    """Interpolate ``x`` (n, C, *spatial) at the places of ``grid``; ``value`` is outside of it."""
    shifted = x - value if value else x
    result = F.grid_sample(shifted, grid, mode=mode, padding_mode="zeros", align_corners=False)
    return result + value if value else result


def resample_labels(
    labels: torch.Tensor, grid: torch.Tensor, outside: int, mode: str = "bilinear"
) -> torch.Tensor:
    """The label with the highest interpolated score, at the places of ``grid``.

    A label's score is what linear interpolation of its indicator would be. It is summed over the
    voxels around a place, so that the cost does not depend on how many labels there are. Where
    scores are equal, the nearest voxel's label wins if it is among them, else the lowest.

    Args:
        labels: integers (n, C, *spatial), the channels sampled at the same places.
        grid: (n, *size, axes).
        outside: label of all that is outside of ``labels``.
        mode: "bilinear", or "nearest".

    Returns:
        (n, C, *size), the type of ``labels``.
    """
    padded = F.pad(labels, [1, 1] * (labels.ndim - 2), value=outside)
    size = grid.shape[1:-1]
    places = grid.flatten(1, -2)
    if mode == "bilinear" and labels.device.type == "cpu":
        found = [_only_where_mixed(*sample) for sample in zip(padded, places, strict=True)]
        return torch.stack(found).unflatten(2, size)
    return _all_around(padded, places, mode == "nearest").unflatten(2, size)


def _only_where_mixed(padded: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """:func:`_all_around` of one sample, which looks closely at places between two labels alone.

    Most places lie among voxels of one label. How many do not is known on the host here, which a
    program waits for on any device but the CPU.

    Args:
        padded: (C, *spatial).
        places: (P, axes).

    Returns:
        (C, P).
    """
    axes, lowest, highest = range(1, padded.ndim), padded, padded
    index, stride = torch.zeros(len(places), dtype=torch.int32), 1
    for axis in reversed(axes):  # a cell is between neighbouring voxels: there is one less of them
        cells = padded.shape[axis] - 1
        lowest = torch.minimum(lowest.narrow(axis, 0, cells), lowest.narrow(axis, 1, cells))
        highest = torch.maximum(highest.narrow(axis, 0, cells), highest.narrow(axis, 1, cells))
        place = _in_voxels(places[:, len(axes) - axis], cells + 1).clamp_(0, cells - 1)
        index += place.int().mul_(stride)  # rounded down, as it is not negative
        stride *= cells
    found, other = (part.flatten(1).index_select(1, index) for part in (lowest, highest))
    differs = found != other
    look = (differs[0] if len(differs) == 1 else differs.any(0)).nonzero()[:, 0]
    found[:, look] = _all_around(padded[None], places[None, look])[0]
    return found


def _in_voxels(places: torch.Tensor, edge: int) -> torch.Tensor:
    """Indices along an axis of an array that is padded by a voxel on both sides.

    Args:
        places: along the axis, -1 to 1 between the borders of the array without padding.
        edge: of the padded array.
    """
    return places.mul((edge - 2) / 2).add_((edge - 1) / 2)


def _all_around(padded: torch.Tensor, places: torch.Tensor, nearest: bool = False) -> torch.Tensor:
    """The label that counts most among the voxels around each place.

    Args:
        padded: (n, C, *spatial), by a voxel on every side.
        places: (n, P, axes).
        nearest: take the label of the nearest voxel.

    Returns:
        (n, C, P).
    """
    spatial = padded.shape[2:]
    indices, shares, stride = list[list[torch.Tensor]](), list[list[torch.Tensor]](), 1
    for axis in reversed(range(len(spatial))):
        edge = spatial[axis]
        place = _in_voxels(places[..., len(spatial) - 1 - axis], edge)
        closest = place.round()
        away = place - closest
        both = (closest, torch.where(away < 0, closest - 1, closest + 1))
        indices.insert(0, [at.clamp(0, edge - 1).long().mul_(stride) for at in both])
        shares.insert(0, [1 - away.abs(), away.abs()])
        stride *= edge
    flat, found, weights = padded.flatten(2), [], []
    for corner in itertools.product((0, 1), repeat=len(spatial)):
        index = reduce(torch.add, (indices[axis][which] for axis, which in enumerate(corner)))
        found.append(flat.gather(2, index[:, None].expand(-1, flat.shape[1], -1)))
        if nearest:
            return found[0]
        weight = reduce(torch.mul, (shares[axis][which] for axis, which in enumerate(corner)))
        weights.append(weight[:, None])
    return _highest_score(found, weights)


def _highest_score(found: list[torch.Tensor], weights: list[torch.Tensor]) -> torch.Tensor:
    """Of the labels around each place the one that counts most; the first is the nearest."""
    scores = [weight.expand(found[0].shape).clone() for weight in weights]
    equal = torch.empty_like(scores[0])
    for one, other in itertools.combinations(range(len(found)), 2):
        torch.eq(found[one], found[other], out=equal)
        scores[one].addcmul_(equal, weights[other])
        scores[other].addcmul_(equal, weights[one])
    rounded = [score.mul_(SCORES).half() for score in scores]
    winner, best = found[0], rounded[0]
    for label, score in zip(found[1:], rounded[1:], strict=True):
        tied = (score == best) & (label < winner) & (best > rounded[0])
        winner = torch.where((score > best) | tied, label, winner)
        best = torch.maximum(best, score)
    return winner


def mirror(x: torch.Tensor, axes: Sequence[Sequence[int]]) -> torch.Tensor:
    """Reverse spatial axes of each sample of ``x`` (B, C, *spatial), in place.

    Args:
        x: is changed, and returned.
        axes: of each sample; 0 is the first after batch and channels.
    """
    for sample, reversed_axes in zip(x, axes, strict=True):
        if reversed_axes:
            sample.copy_(sample.flip([axis + 1 for axis in reversed_axes]))
    return x
