"""Frozen networks, and networks inside the wrapper of torch.compile."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
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


class SelectedClasses(nn.Module):
    """A network that predicts some of its classes; the others count as background.

    The probabilities of all classes that are not selected add up to that of the background.

    >>> network = SelectedClasses(nn.Identity(), (0, 2))
    >>> network(torch.tensor([[0.2, 0.3, 0.5]]).log()).exp()
    tensor([[0.5000, 0.5000]])

    Args:
        network: returns logits (B, its classes, *spatial) of classes that exclude each other.
        channels: of its output, for the background and each selected class.
    """

    def __init__(self, network: nn.Module, channels: Sequence[int]):
        super().__init__()
        self.network, self.channels = network, [*channels]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(x)
        selected = self.channels[1:]
        others = [channel for channel in range(logits.shape[1]) if channel not in selected]
        background = logits[:, others].logsumexp(1, keepdim=True)
        return torch.cat([background, logits[:, selected]], 1)


def unwrap_compiled(network: nn.Module) -> nn.Module:
    """Return the network inside the wrapper of torch.compile, or the network itself."""
    inside = getattr(network, "_orig_mod", network)  # importing its class would take seconds
    return inside if isinstance(inside, nn.Module) else network


def load_pretrained_encoder(network: nn.Module) -> None:
    """Load the initial weights that a plan names for the encoder, if any."""
    load = getattr(unwrap_compiled(network), "load_pretrained", None)
    if load is not None:
        load()
