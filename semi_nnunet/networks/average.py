"""Several networks as one: the mean of their logits, as nnU-Net averages folds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


class NetworkAverage(nn.Module):
    """The mean of the members' logits, at every level of deep supervision.

    Args:
        members: networks of one plan; the first is the one to take where there is room for one.
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


def deep_supervision_switches(network: nn.Module) -> list[Any]:
    """The decoders in ``network`` whose ``deep_supervision`` says how many outputs they give."""
    return [module for module in network.modules() if hasattr(module, "deep_supervision")]
