"""Class weights from how many voxels the classes have, so that small organs count more."""

from __future__ import annotations

import torch
from torch import nn

from semi_nnunet.core.counts import voxels_of_classes
from semi_nnunet.core.partial_labels import per_voxel
from semi_nnunet.core.processes import sum_over_processes

RAREST = 1e-5  # a class of a smaller share of the voxels counts as if it had this one


class FrequencyWeights(nn.Module):
    """w_c proportional to 1 + ln(max f / f_c), of mean 1; f is averaged over the steps.

    The logarithm of the inverse frequency is DHC's (Wang & Li, MICCAI 2023, arXiv:2307.11960,
    DistDW), of pseudo labels there. Differs: the 1, without which the largest class, the
    background, would not count at all.

    Args:
        classes: C, of softmax classes or regions.
        decay: of the moving average; it starts with all classes alike.
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
        """Take note of a batch.

        Args:
            labels: one-hot or regions (B, C, *spatial).
            mask: (B, 1, *spatial), where a voxel counts.
            annotated: bool (B, C), the classes or regions that each sample annotates; None: all. A
                class is looked for in the samples that annotate it; what is labelled background is
                counted as that, as the loss does.
        """
        axes = (0, *range(2, labels.ndim))
        if annotated is not None:
            labels = labels * per_voxel(annotated, labels.ndim)
        voxels = voxels_of_classes(mask, labels.shape[1], annotated)
        sums = torch.stack([(labels * mask).sum(axes).float(), voxels.float()])
        counts, voxels = sum_over_processes(sums)
        new = torch.lerp(counts / voxels.clamp_min(1), self.frequencies, self.decay)
        self.frequencies.copy_(torch.where(voxels > 0, new, self.frequencies))

    def forward(self) -> torch.Tensor:
        """The weights (C,)."""
        frequencies = self.frequencies.clamp_min(RAREST)
        weights = 1.0 + torch.log(frequencies.max() / frequencies)
        return weights / weights.mean()
