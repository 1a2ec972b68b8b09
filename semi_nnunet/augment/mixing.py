"""Mixed patches of a batch: boxes (CutMix, Yun et al. 2019, arXiv:1905.04899) and their targets.

For segmentation: French et al. 2020, arXiv:1906.01916.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from semi_nnunet.core.partial_labels import merge_probs, per_voxel

Mix = Callable[[torch.Tensor], torch.Tensor]  # mixes a batch with itself
ALL = 0.999  # a mixed mask above this is True in both mixed patches


@dataclass(frozen=True)
class BoxMix:
    """A box of another sample of the batch, pasted into each sample.

    Applied alike to images, probabilities and masks, so that they stay voxel-aligned.

    >>> box = torch.tensor([[[True, False]], [[False, False]]])
    >>> BoxMix(box, torch.tensor([1, 0]))(torch.tensor([[[1, 1]], [[2, 2]]])).tolist()
    [[[2, 1]], [[2, 2]]]

    Args:
        box: bool (B, 1, *spatial), True inside the box, where the partner's voxels are used.
        partner: (B,) index of the sample that they come from.
    """

    box: torch.Tensor
    partner: torch.Tensor

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Mix ``x`` (B, C, *spatial)."""
        return torch.where(self.box, x[self.partner], x)


@dataclass(frozen=True)
class TargetPatches:
    """Patches with targets to learn.

    Args:
        x: images (B, C, *spatial).
        target: one-hot or soft labels, or regions (B, classes, *spatial).
        mask: bool (B, 1, *spatial), the voxels that have a target.
        annotated: bool (B, classes) or (B, classes, *spatial), the classes that the target
            annotates, see :mod:`semi_nnunet.core.partial_labels`; None: all.
    """

    x: torch.Tensor
    target: torch.Tensor
    mask: torch.Tensor
    annotated: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, patches: slice | torch.Tensor) -> TargetPatches:
        annotated = None if self.annotated is None else self.annotated[patches]
        return TargetPatches(self.x[patches], self.target[patches], self.mask[patches], annotated)

    def half(self, second: bool) -> TargetPatches:
        """Return the first or the second half of the patches; a single patch is both."""
        middle = len(self) // 2
        return self[slice(middle, None) if second else slice(middle or 1)]

    def repeated(self, count: int) -> TargetPatches:
        """Return ``count`` patches, starting again from the first after the last."""
        if count == len(self):
            return self
        return self[torch.arange(count, device=self.x.device) % len(self)]

    def chunk(self, count: int) -> list[TargetPatches]:
        """Split the patches into ``count`` groups, as ``torch.chunk`` does."""
        indices = torch.arange(len(self)).chunk(count)
        return [self[int(group[0]) : int(group[-1]) + 1] for group in indices]

    def mixed(self, mix: Mix, exclusive: bool) -> TargetPatches:
        """Mix images and targets alike.

        A voxel has a target where all mixed patches have one. Classes count where all mixed
        patches annotate them; the others are merged into the background.
        """
        annotated = self.annotated
        if annotated is not None:
            annotated = mix(per_voxel(annotated, self.x.ndim).float()) > ALL
        target = merge_probs(mix(self.target), annotated, exclusive)
        return TargetPatches(mix(self.x.float()), target, mix(self.mask.float()) > ALL, annotated)


def join_patches(groups: Sequence[TargetPatches]) -> TargetPatches:
    """Concatenate groups of patches; groups without ``annotated`` annotate all classes."""
    annotated = None
    if any(group.annotated is not None for group in groups):
        rows = [
            torch.ones(group.target.shape[:2], dtype=torch.bool, device=group.x.device)
            if group.annotated is None
            else group.annotated
            for group in groups
        ]
        annotated = torch.cat(rows)
    x, target, mask = (
        torch.cat([getattr(group, name) for group in groups]) for name in ("x", "target", "mask")
    )
    return TargetPatches(x, target, mask, annotated)


def sample_boxes(
    batch_size: int, spatial: Sequence[int], edge: float, device: torch.device
) -> torch.Tensor:
    """Sample one random box per sample, each edge ``edge`` times the patch's.

    >>> int(sample_boxes(1, (8, 8), 0.5, torch.device("cpu")).sum())
    16

    Returns:
        bool (B, 1, *spatial), True inside the box.
    """
    box = torch.ones((batch_size, 1, *spatial), dtype=torch.bool, device=device)
    for axis, size in enumerate(spatial):
        length = max(1, round(size * edge))
        start = (torch.rand(batch_size, device=device) * (size - length + 1)).long()
        position = torch.arange(size, device=device)
        inside = (position >= start[:, None]) & (position < start[:, None] + length)
        shape = [size if index == axis else 1 for index in range(len(spatial))]
        box &= inside.view(batch_size, 1, *shape)
    return box


def sample_box_mix(batch: torch.Tensor, edge: float, probability: float) -> BoxMix:
    """Sample a :class:`BoxMix` for tensors with the batch and patch size of ``batch``.

    The partner is the previous sample. A batch of one stays as it is.

    Args:
        batch: (B, C, *spatial).
        edge: of the box, relative to the patch.
        probability: of each sample to be mixed.
    """
    batch_size, spatial, device = batch.shape[0], batch.shape[2:], batch.device
    box = sample_boxes(batch_size, spatial, edge, device)
    is_mixed = torch.rand(batch_size, device=device) < probability
    partner = torch.arange(batch_size, device=device).roll(1)
    return BoxMix(box & per_voxel(is_mixed[:, None], batch.ndim), partner)


def sample_mixup_weight(alpha: float) -> float:
    """Sample max(lambda, 1 - lambda), lambda ~ Beta(alpha, alpha) (MixMatch, eq. 8-9)."""
    weight = float(torch.distributions.Beta(alpha, alpha).sample())
    return max(weight, 1.0 - weight)
