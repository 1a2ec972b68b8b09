"""Gated CRF loss: near voxels of similar intensity should have the same class.

Obukhov et al. 2019, arXiv:1906.04651, eq. 3 to 6, with the Potts model. It lets partly annotated
images teach where a class ends. Ours has the two kernels of PyMIC (position and intensity, and
position only), and no gates: every voxel counts.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import torch

RADIUS = {2: 5, 3: 2}  # voxels along each axis; pairs grow with its power
POSITION = 5.0  # standard deviation of the kernel, in voxels
INTENSITY = 0.3  # standard deviation, in those of a normalised image (PyMIC: 0.1)
POSITION_ONLY = 3.0  # of the kernel without intensities, in voxels


def gated_crf_loss(probs: torch.Tensor, image: torch.Tensor, exclusive: bool) -> torch.Tensor:
    """Return the energy of a prediction: the mean over voxels of the sum over their neighbours.

    A pair of voxels counts with the probability that their classes differ, times its kernels. Equal
    certain predictions have no energy.

    >>> probs = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
    >>> float(gated_crf_loss(probs, torch.zeros(1, 1, 4, 4), exclusive=True))
    0.0

    Args:
        probs: (B, C, *spatial), of classes or regions.
        image: normalised (B, channels, *spatial); receives no gradient.
        exclusive: whether the classes exclude each other; otherwise regions are averaged.
    """
    probs, image = probs.float(), image.detach().float()
    spatial = tuple(image.shape[2:])
    energy = probs.new_zeros(())
    for offset, first, second in list_pairs(spatial, RADIUS[len(spatial)]):
        squared = sum(step * step for step in offset)
        difference = ((image[first] - image[second]) ** 2).sum(1)
        position = squared / (2 * POSITION**2)
        kernel = torch.exp(-difference / (2 * INTENSITY**2) - position)
        kernel = kernel + math.exp(-squared / (2 * POSITION_ONLY**2))
        p, q = probs[first], probs[second]
        differ = 1.0 - (p * q).sum(1) if exclusive else (p + q - 2.0 * p * q).mean(1)
        energy = energy + 2.0 * (kernel * differ).sum()
    return energy / (len(image) * math.prod(spatial))


Window = tuple[slice, ...]  # of a tensor (B, C, *spatial)


def list_pairs(
    spatial: tuple[int, ...], radius: int
) -> Iterator[tuple[tuple[int, ...], Window, Window]]:
    """Yield each offset between neighbours once, with the windows of first and second voxels."""
    batch_and_channels = (slice(None), slice(None))
    for offset in itertools.product(range(-radius, radius + 1), repeat=len(spatial)):
        if offset <= (0,) * len(spatial) or any(
            abs(step) >= size for step, size in zip(offset, spatial, strict=True)
        ):
            continue
        sizes = tuple(zip(offset, spatial, strict=True))
        first = tuple(slice(max(0, -step), size - max(0, step)) for step, size in sizes)
        second = tuple(slice(max(0, step), size - max(0, -step)) for step, size in sizes)
        yield offset, batch_and_channels + first, batch_and_channels + second
