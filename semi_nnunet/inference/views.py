"""Views of a preprocessed image for test-time augmentation.

Data distillation (Radosavovic et al. 2018, arXiv:1712.04440; SemiSeg). A view changes tensors
(C, *spatial) on nnU-Net's grid, after its normalisation, so that it means the same for every
modality. Unlike in SemiSeg, flips and turns are undone before the mean, "gamma" has an effect, and
"equalize" keeps the size of the image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from semi_nnunet.augment.invertible import GridView, list_square_planes

GAMMAS = (0.7, 1.5)  # the ends of nnU-Net's augmentation
BLUR_VOXELS = 1.0
NOISE_SD = 0.1  # of a z-scored image; nnU-Net's augmentation: variance up to .1
LEVELS = 256


def keep_unchanged(x: torch.Tensor) -> torch.Tensor:
    """Return ``x`` itself."""
    return x


@dataclass(frozen=True)
class View:
    """A change of an image, and the way back for its logits.

    Args:
        name: for the record.
        change: maps an image (C, *spatial) to its view.
        back: maps logits (classes, *spatial) of the view to the frame of the image.
    """

    name: str
    change: Callable[[torch.Tensor], torch.Tensor]
    back: Callable[[torch.Tensor], torch.Tensor] = keep_unchanged

    def of(self, x: torch.Tensor, image_channels: int) -> torch.Tensor:
        """Return the view of ``x``.

        Channels after those of the image (labels of a cascade's first stage) are moved, but their
        values are kept.
        """
        if self.back is not keep_unchanged or len(x) == image_channels:
            return self.change(x)
        return torch.cat([self.change(x[:image_channels]), x[image_channels:]])


IDENTITY = View("as it is", keep_unchanged)


def make_views(names: Sequence[str], spacing: Sequence[float]) -> list[View]:
    """Return the unchanged image and the named views.

    "flips" adds none: the sliding window mirrors tiles as nnU-Net does.

    >>> [view.name for view in make_views(["gamma", "blur"], spacing=(1.0, 1.0))]
    ['as it is', 'gamma 0.7', 'gamma 1.5', 'blur']

    Args:
        names: some of :data:`semi_nnunet.settings.common.VIEWS`.
        spacing: of the network's grid; an image is turned only in planes of equal spacing.
    """
    views = [IDENTITY]
    if "rot90" in names:
        planes = find_square_planes(spacing)
        views += [make_turn(plane, quarter) for plane in planes for quarter in (1, 2, 3)]
    if "gamma" in names:
        views += [View(f"gamma {power}", partial(change_gamma, power=power)) for power in GAMMAS]
    if "blur" in names:
        views.append(View("blur", partial(blur_image, axes=len(spacing))))
    if "noise" in names:
        views.append(View("noise", add_image_noise))
    if "equalize" in names:
        views.append(View("equalize", equalize_histogram))
    return views


def find_square_planes(spacing: Sequence[float]) -> list[tuple[int, int]]:
    """Return the planes with square voxels, as axes counted from the end (2-D: of each slice)."""
    count = len(spacing)
    return [(a - count, b - count) for a, b in list_square_planes([1] * count, spacing)]


def make_turn(plane: tuple[int, int], quarter_turns: int) -> View:
    """Make a view of quarter turns in a plane of axes counted from the end."""

    def turn(x: torch.Tensor, quarters: int) -> torch.Tensor:
        axes = (plane[0] % x.ndim - 1, plane[1] % x.ndim - 1)
        return GridView(plane=axes, quarter_turns=quarters)(x[None])[0]

    name = f"turn {plane} x {quarter_turns}"
    return View(name, partial(turn, quarters=quarter_turns), partial(turn, quarters=-quarter_turns))


def change_gamma(x: torch.Tensor, power: float) -> torch.Tensor:
    """Raise grey values, scaled to [0, 1] per channel, to a power; keep mean and deviation."""
    return map_channels(x, lambda c: match_mean_and_sd(scale_channel_to_unit(c) ** power, c))


def blur_image(x: torch.Tensor, axes: int) -> torch.Tensor:
    """Blur every channel with a Gaussian of one voxel along the last axes (2: within slices)."""

    def blur(c: torch.Tensor) -> torch.Tensor:
        sigmas = [0.0] * (c.ndim - axes) + [BLUR_VOXELS] * axes
        return torch.from_numpy(gaussian_filter(c.numpy(), sigmas))

    return map_channels(x, blur)


def add_image_noise(x: torch.Tensor) -> torch.Tensor:
    """Add Gaussian noise, always equal for an image of the same shape."""
    generator = torch.Generator().manual_seed(0)
    return x + NOISE_SD * torch.randn(x.shape, generator=generator)


def equalize_histogram(x: torch.Tensor) -> torch.Tensor:
    """Make every channel's histogram flat; keep its mean and standard deviation."""

    def equalize(c: torch.Tensor) -> torch.Tensor:
        levels, counts = (scale_channel_to_unit(c) * (LEVELS - 1)).round().long(), np.zeros(LEVELS)
        present, number = np.unique(levels.numpy(), return_counts=True)
        counts[present] = number
        share = torch.from_numpy(counts.cumsum() / counts.sum()).to(c.dtype)
        return match_mean_and_sd(share[levels], c)

    return map_channels(x, equalize)


def map_channels(x: torch.Tensor, change: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Apply ``change`` to each channel, except to constant ones."""
    return torch.stack([c if c.min() == c.max() else change(c) for c in x.cpu()])


def scale_channel_to_unit(c: torch.Tensor) -> torch.Tensor:
    """Scale a channel from 0 (darkest) to 1 (brightest)."""
    return (c - c.min()) / (c.max() - c.min())


def match_mean_and_sd(c: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Shift and scale a channel to the mean and standard deviation of ``target``."""
    return (c - c.mean()) / c.std().clamp_min(1e-8) * target.std() + target.mean()
