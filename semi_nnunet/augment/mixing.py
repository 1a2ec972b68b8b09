"""Mix the samples of a batch by boxes: CutMix (Yun et al. 2019, arXiv:1905.04899).

For segmentation: French et al. 2020, arXiv:1906.01916.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class BoxMix:
    """Paste a box of another sample of the batch into each sample.

    Applied to images, probabilities and masks alike, so that they stay voxel-aligned.

    Args:
        box: bool (B, 1, *spatial), True inside the box, where the partner's voxels are taken.
        partner: (B,) index of the sample to take them from.
    """

    box: torch.Tensor
    partner: torch.Tensor

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Mix ``x`` (B, C, *spatial)."""
        return torch.where(self.box, x[self.partner], x)


@dataclass(frozen=True)
class Side:
    """One side of a mixture: image, one-hot labels, mask of the voxels that have one.

    ``annotated``, (B, C), says which classes the labels tell; None: all.
    """

    x: torch.Tensor
    target: torch.Tensor
    mask: torch.Tensor
    annotated: torch.Tensor | None = None

    def half(self, second: bool) -> Side:
        """The first or the second half of the patches; a single patch is both."""
        middle = len(self.x) // 2
        return self.of(slice(middle, None) if second else slice(middle or 1))

    def lent(self, count: int) -> Side:
        """``count`` patches, one after the other, from the first one again where they end."""
        if count == len(self.x):
            return self
        return self.of(torch.arange(count, device=self.x.device) % len(self.x))

    def of(self, patches: slice | torch.Tensor) -> Side:
        """Some of the patches, by index."""
        annotated = None if self.annotated is None else self.annotated[patches]
        return Side(self.x[patches], self.target[patches], self.mask[patches], annotated)


def sample_boxes(
    batch_size: int, spatial: Sequence[int], edge: float, device: torch.device
) -> torch.Tensor:
    """One random box per sample, each edge ``edge`` times the patch's.

    Returns:
        bool (B, 1, *spatial), True inside the box.
    """
    box = torch.ones((batch_size, 1, *spatial), dtype=torch.bool, device=device)
    for axis, size in enumerate(spatial):
        length = max(1, round(size * edge))
        start = (torch.rand(batch_size, device=device) * (size - length + 1)).long()
        position = torch.arange(size, device=device)
        inside = (position >= start[:, None]) & (position < start[:, None] + length)
        shape = [size if other == axis else 1 for other in range(len(spatial))]
        box &= inside.view(batch_size, 1, *shape)
    return box


def sample_box_mix(like: torch.Tensor, edge: float, probability: float) -> BoxMix:
    """A random :class:`BoxMix` for tensors with the batch and patch size of ``like``.

    The partner is the sample before; each sample is mixed with ``probability``. A batch of one
    stays as it is.

    Args:
        like: (B, C, *spatial).
        edge: of the box, relative to the patch.
        probability: of each sample to be mixed.
    """
    batch_size, spatial, device = like.shape[0], like.shape[2:], like.device
    box = sample_boxes(batch_size, spatial, edge, device)
    chosen = torch.rand(batch_size, device=device) < probability
    return BoxMix(
        box & chosen.view(-1, *[1] * (like.ndim - 1)),
        torch.arange(batch_size, device=device).roll(1),
    )


def mixup_weight(alpha: float) -> float:
    """lambda' = max(lambda, 1 - lambda), lambda ~ Beta(alpha, alpha) (MixMatch, eq. 8-9)."""
    weight = float(torch.distributions.Beta(alpha, alpha).sample())
    return max(weight, 1.0 - weight)
