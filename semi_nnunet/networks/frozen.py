"""Networks that only predict."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn


class FrozenNetworks(nn.ModuleList):
    """Trained networks that take no gradient and stay in evaluation mode."""

    def __init__(self, networks: Iterable[nn.Module]):
        super().__init__(networks)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> FrozenNetworks:
        return super().train(False)
