"""nnU-Net's appearance changes, applied to many channels of many samples at once.

Every function takes ``rows`` (n, *spatial), the channels to change, with parameters for each, and
returns new rows. The rows are selected on the host. Unlabelled views use the changes of
``intensity.py``, whose ranges come from another method.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.nn import functional as F

from semi_nnunet.augment.base import per_sample
from semi_nnunet.augment.intensity import convolve_axes

MIN_DIVISOR = 1e-7  # as in batchgeneratorsv2
KERNEL_WIDTH_SDS = 6  # width of a kernel in standard deviations, as in batchgeneratorsv2


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
