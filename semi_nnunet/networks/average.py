"""Several networks as one: the mean of their logits, as nnU-Net averages folds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


class NetworkAverage(nn.Module):
    """The mean of the members' logits, at every level of deep supervision.

    >>> average = NetworkAverage([nn.Identity(), nn.Flatten(0)])
    >>> average(torch.tensor([1.0, 3.0]))
    tensor([1., 3.])

    Args:
        members: networks of one plan; the first is used where only one network is possible.
    """

    def __init__(self, members: Sequence[nn.Module]):
        super().__init__()
        self.members = nn.ModuleList(members)
        self.training = members[0].training

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        outputs = [member(x) for member in self.members]
        if isinstance(outputs[0], torch.Tensor):
            return torch.stack(outputs).mean(0)
        return [torch.stack(level).mean(0) for level in zip(*outputs, strict=True)]


def find_deep_supervision_modules(network: nn.Module) -> list[Any]:
    """Return the modules (nnU-Net's decoders) whose ``deep_supervision`` switches it on or off."""
    return [module for module in network.modules() if hasattr(module, "deep_supervision")]
