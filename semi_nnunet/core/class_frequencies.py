"""Class weights from the number of voxels of each class, so that small organs count more."""

from __future__ import annotations

import torch
from torch import nn

from semi_nnunet.core.counts import count_class_voxels
from semi_nnunet.core.partial_labels import per_voxel
from semi_nnunet.core.processes import all_reduce_sum

MIN_FREQUENCY = 1e-5  # lower bound on f_c, so that the weights of very rare classes stay finite


class FrequencyWeights(nn.Module):
    """Weights w_c proportional to 1 + ln(max f / f_c), with mean 1.

    The frequencies f are a moving average over steps. The logarithm of the inverse frequency is
    DHC's (Wang & Li, MICCAI 2023, arXiv:2307.11960, DistDW), there of pseudo labels. Differs: the
    1, without which the largest class, the background, would not count at all.

    >>> FrequencyWeights(3)()
    tensor([1., 1., 1.])

    Args:
        classes: C, of softmax classes or regions.
        decay: of the moving average, which starts with equal frequencies.
    """

    frequencies: torch.Tensor

    def __init__(self, classes: int, decay: float = 0.99):
        super().__init__()
        self.decay = decay
        self.register_buffer("frequencies", torch.full((classes,), 1.0 / classes))

    @torch.no_grad()
    def count(
        self,
        labels: torch.Tensor,
        mask: torch.Tensor,
        annotated: torch.Tensor | None = None,
    ) -> None:
        """Update the frequencies with a batch.

        Args:
            labels: one-hot or regions (B, C, *spatial).
            mask: (B, 1, *spatial), True for the voxels to count.
            annotated: bool (B, C), the classes or regions that each sample annotates; None: all.
                A class is counted only in samples that annotate it; voxels labelled background
                are counted as such, as in the loss.
        """
        axes = (0, *range(2, labels.ndim))
        if annotated is not None:
            labels = labels * per_voxel(annotated, labels.ndim)
        voxels = count_class_voxels(mask, labels.shape[1], annotated)
        sums = torch.stack([(labels * mask).sum(axes).float(), voxels.float()])
        counts, voxels = all_reduce_sum(sums)
        new = torch.lerp(counts / voxels.clamp_min(1), self.frequencies, self.decay)
        self.frequencies.copy_(torch.where(voxels > 0, new, self.frequencies))

    def forward(self) -> torch.Tensor:
        """Return the weights (C,)."""
        frequencies = self.frequencies.clamp_min(MIN_FREQUENCY)
        weights = 1.0 + torch.log(frequencies.max() / frequencies)
        return weights / weights.mean()
