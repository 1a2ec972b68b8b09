"""Views of a preprocessed image to average over: each is undone exactly, or moves nothing.

Data distillation (Radosavovic et al. 2018, arXiv:1712.04440; SemiSeg). A view works on (C,
*spatial) tensors on nnU-Net's grid, after its normalisation, so that it means the same for every
modality. Not as SemiSeg does it: a picture's flip is undone before the mean, "gamma" changes
something, "equalize" keeps the picture's size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from semi_nnunet.augment.invertible import GridView, square_planes

GAMMAS = (0.7, 1.5)  # the ends of nnU-Net's augmentation
BLUR_VOXELS = 1.0
NOISE_SD = 0.1  # of a z-scored image; nnU-Net's augmentation: variance up to .1
LEVELS = 256


@dataclass(frozen=True)
class View:
    """A change of an image, and the way back for what is predicted of it.

    Args:
        name: for the record.
        change: of an image (C, *spatial).
        back: of logits (classes, *spatial).
    """

    name: str
    change: Callable[[torch.Tensor], torch.Tensor]
    back: Callable[[torch.Tensor], torch.Tensor]

    def of(self, x: torch.Tensor, image_channels: int) -> torch.Tensor:
        """The view of ``x``; channels behind the image's, labels of a previous stage, only move."""
        if self.back is not same or len(x) == image_channels:
            return self.change(x)
        return torch.cat([self.change(x[:image_channels]), x[image_channels:]])


def same(x: torch.Tensor) -> torch.Tensor:
    """Nothing changes, or nothing has moved."""
    return x


IDENTITY = View("as it is", same, same)


def make_views(names: Sequence[str], spacing: Sequence[float]) -> list[View]:
    """The image as it is, and the views named; "flips" is left to nnU-Net's own mirroring.

    Args:
        names: of :data:`semi_nnunet.settings.common.VIEWS`.
        spacing: of the network's grid; an image is turned in planes of equal spacing alone.
    """
    views = [IDENTITY]
    if "rot90" in names:
        views += [turn(plane, quarter) for plane in planes(spacing) for quarter in (1, 2, 3)]
    if "gamma" in names:
        views += [View(f"gamma {power}", Gamma(power), same) for power in GAMMAS]
    if "blur" in names:
        views.append(View("blur", blurred, same))
    if "noise" in names:
        views.append(View("noise", noisy, same))
    if "equalize" in names:
        views.append(View("equalize", equalized, same))
    return views


def planes(spacing: Sequence[float]) -> list[tuple[int, int]]:
    """Planes of the last axes (a 2-D network sees slices) in which voxels are square."""
    count = len(spacing)
    return [(a - count, b - count) for a, b in square_planes([1] * count, spacing)]


def turn(plane: tuple[int, int], quarter_turns: int) -> View:
    """Quarter turns in a plane of axes counted from the end."""

    def turned(by: int) -> Callable[[torch.Tensor], torch.Tensor]:
        def rotate(x: torch.Tensor) -> torch.Tensor:
            axes = (plane[0] % x.ndim - 1, plane[1] % x.ndim - 1)
            return GridView(plane=axes, quarter_turns=by)(x[None])[0]

        return rotate

    return View(f"turn {plane} x {quarter_turns}", turned(quarter_turns), turned(-quarter_turns))


@dataclass(frozen=True)
class Gamma:
    """Grey values between a channel's darkest and brightest raised to a power; mean and sd stay."""

    power: float

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return per_channel(x, lambda c: scaled_like(to_unit(c) ** self.power, c))


def blurred(x: torch.Tensor) -> torch.Tensor:
    """A Gaussian of one voxel along the axes of every channel."""
    return per_channel(x, lambda c: torch.from_numpy(gaussian_filter(c.numpy(), BLUR_VOXELS)))


def noisy(x: torch.Tensor) -> torch.Tensor:
    """Gaussian noise, the same for the same image."""
    generator = torch.Generator().manual_seed(0)
    return x + NOISE_SD * torch.randn(x.shape, generator=generator)


def equalized(x: torch.Tensor) -> torch.Tensor:
    """Make every channel's histogram flat; its mean and standard deviation stay."""

    def equalize(c: torch.Tensor) -> torch.Tensor:
        levels, counts = (to_unit(c) * (LEVELS - 1)).round().long(), np.zeros(LEVELS)
        found, number = np.unique(levels.numpy(), return_counts=True)
        counts[found] = number
        share = torch.from_numpy(counts.cumsum() / counts.sum()).to(c.dtype)
        return scaled_like(share[levels], c)

    return per_channel(x, equalize)


def per_channel(x: torch.Tensor, change: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """``change`` of each channel; a constant one stays."""
    return torch.stack([c if c.min() == c.max() else change(c) for c in x.cpu()])


def to_unit(c: torch.Tensor) -> torch.Tensor:
    """Scale a channel from 0 (darkest) to 1 (brightest)."""
    return (c - c.min()) / (c.max() - c.min())


def scaled_like(c: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Shift and scale a channel to the mean and standard deviation of ``like``."""
    return (c - c.mean()) / c.std().clamp_min(1e-8) * like.std() + like.mean()
