"""nnU-Net's training transforms, applied to a whole batch on any device.

The parameters are drawn on the host, so that samples which nothing changes cost only a copy, and
nothing waits for the device. Changes of intensity take ``rows`` (n, *spatial), the channels to
change, with parameters for each, and return new rows. Unlabelled views use the changes of
``intensity.py``, whose ranges come from another method.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import reduce

import torch
from torch.nn import functional as F

from semi_nnunet.augment.base import per_sample
from semi_nnunet.augment.intensity import convolve_axes

MIN_DIVISOR = 1e-7  # as in batchgeneratorsv2
KERNEL_WIDTH_SDS = 6  # width of a kernel in standard deviations, as in batchgeneratorsv2
SCORE_STEPS = 1000  # label scores are rounded to so many steps (float16), so that near ties tie


# ---- geometry ----


def crop_centre(x: torch.Tensor, size: Sequence[int], value: float) -> torch.Tensor:
    """Return a copy of the middle of ``x`` (B, C, *spatial), padded with ``value`` if too small.

    >>> crop_centre(torch.arange(4.0).view(1, 1, 4), [2], 0.0)
    tensor([[[1., 2.]]])
    """
    padding: list[int] = []
    for axis, (edge, cropped) in enumerate(zip(x.shape[2:], size, strict=True), start=2):
        start = edge // 2 - cropped // 2
        begin, end = max(start, 0), min(edge, max(start, 0) + cropped)
        x = x.narrow(axis, begin, end - begin)
        low_padding = max(-start, 0)
        padding = [low_padding, cropped - (end - begin) - low_padding, *padding]
    if any(padding):
        return F.pad(x, padding, value=value)
    return x.clone(memory_format=torch.contiguous_format)


def build_sampling_matrix(
    affine: Sequence[Sequence[float]], shape: Sequence[int], size: Sequence[int]
) -> list[list[float]]:
    """Convert an affine map of voxels into the matrix of :func:`torch.nn.functional.affine_grid`.

    Args:
        affine: from positions in the result to positions in the source, both relative to the
            centre, in voxels; axes in the order of the tensor.
        shape: spatial, of the source.
        size: spatial, of the result.

    Returns:
        (spatial axes, spatial axes + 1).
    """
    rows = [
        [value * edge / source_edge for value, edge in zip(row, size, strict=True)][::-1]
        for row, source_edge in zip(affine, shape, strict=True)
    ]
    return [[*row, 0.0] for row in rows[::-1]]


def build_sampling_grid(matrices: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Compute the positions of the result's voxels in the source.

    Equal to :func:`torch.nn.functional.affine_grid`, in a third of its time on a CPU: one vector
    for each axis of the result, and their sums.

    Args:
        matrices: (n, axes, axes + 1), see :func:`build_sampling_matrix`.
        size: spatial, of the result.

    Returns:
        (n, *size, axes), for :func:`torch.nn.functional.grid_sample`.
    """
    grid = matrices.new_empty((matrices.shape[0], *size, len(size)))
    shapes = [[1] * len(size), *_one_axis_shapes(size)]
    for row in range(len(size)):
        terms = [matrices[:, row, -1:]]
        for axis, edge in enumerate(size):
            centred = torch.arange(1 - edge, edge, 2, device=matrices.device) / edge
            terms.append(matrices[:, row, len(size) - 1 - axis, None] * centred)
        *views, last = [term.view(-1, *shape) for term, shape in zip(terms, shapes, strict=True)]
        torch.add(sum(views[1:], views[0]), last, out=grid[..., row])
    return grid


def _one_axis_shapes(size: Sequence[int]) -> list[list[int]]:
    """Return for each axis the shape that spreads a vector along it."""
    return [
        [edge if axis == index else 1 for index in range(len(size))]
        for axis, edge in enumerate(size)
    ]


def resample_image(
    x: torch.Tensor, grid: torch.Tensor, value: float = 0.0, mode: str = "bilinear"
) -> torch.Tensor:
    """Interpolate ``x`` (n, C, *spatial) at the positions of ``grid``; ``value`` is outside."""
    shifted = x - value if value else x
    result = F.grid_sample(shifted, grid, mode=mode, padding_mode="zeros", align_corners=False)
    return result + value if value else result


def resample_labels(
    labels: torch.Tensor, grid: torch.Tensor, outside: int, mode: str = "bilinear"
) -> torch.Tensor:
    """Return the label with the highest interpolated score at the positions of ``grid``.

    A label's score is the linear interpolation of its indicator. It is summed over the voxels
    around a position, so that the cost does not depend on the number of labels. Of equal scores
    the nearest voxel's label wins if it is among them, else the lowest.

    Args:
        labels: integers (n, C, *spatial); all channels are sampled at the same positions.
        grid: (n, *size, axes).
        outside: label outside of ``labels``.
        mode: "bilinear", or "nearest".

    Returns:
        (n, C, *size), of the dtype of ``labels``.
    """
    padded = F.pad(labels, [1, 1] * (labels.ndim - 2), value=outside)
    size = grid.shape[1:-1]
    positions = grid.flatten(1, -2)
    if mode == "bilinear" and labels.device.type == "cpu":
        samples = [_best_where_mixed(*sample) for sample in zip(padded, positions, strict=True)]
        return torch.stack(samples).unflatten(2, size)
    return _best_of_neighbours(padded, positions, mode == "nearest").unflatten(2, size)


def _best_where_mixed(padded: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Do :func:`_best_of_neighbours` of one sample, computing scores only where labels meet.

    Most positions lie among voxels of one label. The number of the others must be known on the
    host, for which a program would wait on any device but the CPU.

    Args:
        padded: (C, *spatial).
        positions: (P, axes).

    Returns:
        (C, P).
    """
    axes, lowest, highest = range(1, padded.ndim), padded, padded
    index, stride = torch.zeros(len(positions), dtype=torch.int32), 1
    for axis in reversed(axes):  # a cell is between neighbouring voxels: one fewer than voxels
        cells = padded.shape[axis] - 1
        lowest = torch.minimum(lowest.narrow(axis, 0, cells), lowest.narrow(axis, 1, cells))
        highest = torch.maximum(highest.narrow(axis, 0, cells), highest.narrow(axis, 1, cells))
        cell = _to_voxels(positions[:, len(axes) - axis], cells + 1).clamp_(0, cells - 1)
        index += cell.int().mul_(stride)  # rounds down, as it is not negative
        stride *= cells
    labels, highest = (bound.flatten(1).index_select(1, index) for bound in (lowest, highest))
    differs = labels != highest
    mixed = (differs[0] if len(differs) == 1 else differs.any(0)).nonzero()[:, 0]
    labels[:, mixed] = _best_of_neighbours(padded[None], positions[None, mixed])[0]
    return labels


def _to_voxels(positions: torch.Tensor, edge: int) -> torch.Tensor:
    """Convert positions along an axis into indices of an array padded by a voxel on both sides.

    Args:
        positions: -1 to 1 between the borders of the array without padding.
        edge: of the padded array.
    """
    return positions.mul((edge - 2) / 2).add_((edge - 1) / 2)


def _best_of_neighbours(
    padded: torch.Tensor, positions: torch.Tensor, nearest: bool = False
) -> torch.Tensor:
    """Return the label with the highest score among the voxels around each position.

    Args:
        padded: (n, C, *spatial), by a voxel on every side.
        positions: (n, P, axes).
        nearest: return the label of the nearest voxel.

    Returns:
        (n, C, P).
    """
    spatial = padded.shape[2:]
    indices, shares, stride = list[list[torch.Tensor]](), list[list[torch.Tensor]](), 1
    for axis in reversed(range(len(spatial))):
        edge = spatial[axis]
        position = _to_voxels(positions[..., len(spatial) - 1 - axis], edge)
        closest = position.round()
        offset = position - closest
        neighbours = (closest, torch.where(offset < 0, closest - 1, closest + 1))
        indices.insert(0, [v.clamp(0, edge - 1).long().mul_(stride) for v in neighbours])
        shares.insert(0, [1 - offset.abs(), offset.abs()])
        stride *= edge
    flat, labels, weights = padded.flatten(2), [], []
    for corner in itertools.product((0, 1), repeat=len(spatial)):
        index = reduce(torch.add, (indices[axis][side] for axis, side in enumerate(corner)))
        labels.append(flat.gather(2, index[:, None].expand(-1, flat.shape[1], -1)))
        if nearest:
            return labels[0]
        weight = reduce(torch.mul, (shares[axis][side] for axis, side in enumerate(corner)))
        weights.append(weight[:, None])
    return _highest_score(labels, weights)


def _highest_score(labels: list[torch.Tensor], weights: list[torch.Tensor]) -> torch.Tensor:
    """Return the label with the highest total weight at each position; the first is the nearest."""
    scores = [weight.expand(labels[0].shape).clone() for weight in weights]
    equal = torch.empty_like(scores[0])
    for i, j in itertools.combinations(range(len(labels)), 2):
        torch.eq(labels[i], labels[j], out=equal)
        scores[i].addcmul_(equal, weights[j])
        scores[j].addcmul_(equal, weights[i])
    rounded = [score.mul_(SCORE_STEPS).half() for score in scores]
    winner, best = labels[0], rounded[0]
    for label, score in zip(labels[1:], rounded[1:], strict=True):
        tied = (score == best) & (label < winner) & (best > rounded[0])
        winner = torch.where((score > best) | tied, label, winner)
        best = torch.maximum(best, score)
    return winner


def mirror_samples(x: torch.Tensor, axes: Sequence[Sequence[int]]) -> torch.Tensor:
    """Reverse spatial axes of each sample of ``x`` (B, C, *spatial), in place.

    Args:
        x: changed and returned.
        axes: of each sample; 0 is the first after batch and channels.
    """
    for sample, reversed_axes in zip(x, axes, strict=True):
        if reversed_axes:
            sample.copy_(sample.flip([axis + 1 for axis in reversed_axes]))
    return x


# ---- labels, after the geometry ----


def replace_label(
    labels: torch.Tensor, value: int, by: int, channels: Sequence[int] | None
) -> torch.Tensor:
    """Replace a label, in place, in some channels of (B, C, *spatial), or in all (None)."""
    views = [labels] if channels is None else [labels[:, channel] for channel in channels]
    for view in views:
        view.masked_fill_(view == value, by)
    return labels


def fill_outside(
    x: torch.Tensor, outside: torch.Tensor, channels: Sequence[int], value: float
) -> torch.Tensor:
    """Set channels of ``x`` (B, C, *spatial), in place, where ``outside`` (B, *spatial) is True."""
    for channel in channels:
        x[:, channel].masked_fill_(outside, value)
    return x


def to_regions(labels: torch.Tensor, regions: Sequence[Sequence[int]]) -> torch.Tensor:
    """Convert labels into regions.

    >>> to_regions(torch.tensor([[0, 1, 2]]), [(1, 2), (2,)])
    tensor([[[False,  True,  True],
             [False, False,  True]]])

    Args:
        labels: (B, *spatial).
        regions: the labels of each region.

    Returns:
        bool (B, regions, *spatial).
    """
    shape = (labels.shape[0], len(regions), *labels.shape[1:])
    inside = torch.zeros(shape, dtype=torch.bool, device=labels.device)
    for number, region in enumerate(regions):
        for label in region:
            inside[:, number] |= labels == label
    return inside


def downsample_labels(
    labels: torch.Tensor, scales: Sequence[Sequence[float]]
) -> list[torch.Tensor]:
    """Downsample (B, C, *spatial) to every scale of deep supervision, by the nearest voxel."""
    return [_downsample(labels, scale) for scale in scales]


def _downsample(labels: torch.Tensor, scale: Sequence[float]) -> torch.Tensor:
    if all(factor == 1 for factor in scale):
        return labels
    spatial = labels.shape[2:]
    shape = [round(edge * factor) for edge, factor in zip(spatial, scale, strict=True)]
    if any(edge % small for edge, small in zip(spatial, shape, strict=True)):
        return F.interpolate(labels.float(), shape, mode="nearest-exact").to(labels.dtype)
    steps = [edge // small for edge, small in zip(spatial, shape, strict=True)]
    middle = (slice(step // 2, None, step) for step in steps)  # as nearest-exact
    index = (slice(None), slice(None), *middle)
    return labels[index].contiguous()


# ---- intensity ----


def add_noise(rows: torch.Tensor, sd: torch.Tensor, seed: int) -> torch.Tensor:
    """Add white noise of standard deviations ``sd`` (n,), drawn on the rows' device."""
    device = "cpu" if rows.device.type == "meta" else rows.device  # meta has no generator
    generator = torch.Generator(device).manual_seed(seed)
    noise = torch.empty_like(rows).normal_(generator=generator)
    return noise.mul_(per_sample(sd, rows)).add_(rows)


def kernel_radius(sigma: float) -> int:
    """Return the radius of batchgeneratorsv2's Gaussian kernel, in voxels.

    >>> kernel_radius(1.0)
    3
    """
    width = sigma * KERNEL_WIDTH_SDS + 0.5
    nearest = round(width)
    if nearest % 2 == 0:
        nearest += 1 if width >= nearest else -1
    return (nearest - 1) // 2


def list_kernel_weights(sigma: float, radius: int) -> list[float]:
    """Return the weights of batchgeneratorsv2's Gaussian kernel, zero-padded up to ``radius``."""
    nonzero = kernel_radius(sigma)
    values = [
        math.exp(-0.5 * (offset / sigma) ** 2) if abs(offset) <= nonzero else 0.0
        for offset in range(-radius, radius + 1)
    ]
    return [value / sum(values) for value in values]


def blur(rows: torch.Tensor, kernels: Sequence[torch.Tensor]) -> torch.Tensor:
    """Convolve every row by a kernel for each axis; the border is reflected.

    Args:
        rows: (n, *spatial).
        kernels: for each spatial axis (n, 2 radius + 1).
    """
    return convolve_axes(rows[:, None], kernels, "reflect")[:, 0]


def multiply(rows: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Change the brightness: multiply each row by its factor (n,)."""
    return rows * per_sample(factors, rows)


def change_contrast(
    rows: torch.Tensor, factors: torch.Tensor, preserve_range: bool
) -> torch.Tensor:
    """Scale the differences from each row's mean by factors (n,), optionally within its range."""
    flat = rows.flatten(1)
    mean = flat.mean(1, keepdim=True)
    changed = (flat - mean).mul_(factors[:, None]).add_(mean)
    if preserve_range:
        changed = changed.clamp_(flat.amin(1, keepdim=True), flat.amax(1, keepdim=True))
    return changed.view(rows.shape)


def lower_resolution(rows: torch.Tensor, shapes: Sequence[Sequence[int]]) -> torch.Tensor:
    """Sample each row down to a spatial shape, and interpolate it back linearly."""
    linear = {1: "linear", 2: "bilinear", 3: "trilinear"}[rows.ndim - 1]
    lowered = torch.empty_like(rows)
    for row, shape, target in zip(rows, shapes, lowered, strict=True):
        small = F.interpolate(row[None, None], list(shape), mode="nearest-exact")
        target.copy_(F.interpolate(small, row.shape, mode=linear)[0, 0])
    return lowered


def change_row_gamma(
    rows: torch.Tensor, gamma: torch.Tensor, sign: torch.Tensor, keeps: torch.Tensor
) -> torch.Tensor:
    """Map values to [0, 1], raise them to a power, and map them back.

    Args:
        rows: (n, *spatial).
        gamma: the powers (n,).
        sign: -1 for rows that are inverted before and after, else 1 (n,).
        keeps: 1 for rows that keep their mean and standard deviation, else 0 (n,).
    """
    gamma, sign, keeps = gamma[:, None], sign[:, None], keeps[:, None]
    flat = rows.flatten(1) * sign
    mean, sd = _mean_and_sd(flat)
    lowest = flat.amin(1, keepdim=True)
    span = flat.amax(1, keepdim=True) - lowest
    raised = flat.sub_(lowest).div_(span.clamp_min(MIN_DIVISOR))
    raised = raised.log2_().mul_(gamma).exp2_()  # on a CPU in a seventh of the time of pow
    raised = raised.mul_(span).add_(lowest)
    raised_mean, raised_sd = _mean_and_sd(raised)
    factor = torch.where(keeps > 0, sd / raised_sd.clamp_min(MIN_DIVISOR), 1.0)
    shift = torch.where(keeps > 0, mean - raised_mean * factor, 0.0)
    return raised.mul_(factor * sign).add_(shift * sign).view(rows.shape)


def _mean_and_sd(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation of (n, values), both (n, 1); torch.std is slow."""
    mean = rows.mean(1, keepdim=True)
    distance = torch.linalg.vector_norm(rows - mean, dim=1, keepdim=True)
    return mean, distance / math.sqrt(max(rows.shape[1] - 1, 1))
