"""Frozen networks, and networks inside the wrapper of torch.compile."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn


class FrozenNetworks(nn.ModuleList):
    """Trained networks that receive no gradient and stay in evaluation mode.

    >>> FrozenNetworks([nn.Dropout()]).train()[0].training
    False
    """

    def __init__(self, networks: Iterable[nn.Module]):
        super().__init__(networks)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> FrozenNetworks:
        return super().train(False)


def unwrap_compiled(network: nn.Module) -> nn.Module:
    """Return the network inside the wrapper of torch.compile, or the network itself."""
    inside = getattr(network, "_orig_mod", network)  # importing its class would take seconds
    return inside if isinstance(inside, nn.Module) else network


def load_pretrained_encoder(network: nn.Module) -> None:
    """Load the initial weights that a plan names for the encoder, if any."""
    load = getattr(unwrap_compiled(network), "load_pretrained", None)
    if load is not None:
        load()
