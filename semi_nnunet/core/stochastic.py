"""Channel dropout on encoder features, and passes that leave batch statistics unchanged."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from semi_nnunet.util.errors import UserError


def drop_channels(features: torch.Tensor, probability: float) -> torch.Tensor:
    """Zero whole channels of (B, C, *spatial) and rescale the rest (Tompson et al. 2015)."""
    shape = features.shape[:2] + (1,) * (features.ndim - 2)
    keep = torch.rand(shape, device=features.device) >= probability
    return features * keep / (1.0 - probability)


class DroppingEncoder(nn.Module):
    """An encoder with channel dropout on its features.

    Args:
        encoder: returns the skip features, bottleneck last.
        probability: of a channel to be dropped, in (0, 1).
        every_level: drop on every skip, not only on the bottleneck.
    """

    def __init__(self, encoder: nn.Module, probability: float, every_level: bool):
        super().__init__()
        self.encoder, self.probability, self.every_level = encoder, probability, every_level

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        *skips, bottleneck = self.encoder(x)
        if self.every_level:
            skips = [drop_channels(skip, self.probability) for skip in skips]
        return [*skips, drop_channels(bottleneck, self.probability)]


def add_feature_dropout(
    network: nn.Module, probability: float, every_level: bool = False
) -> nn.Module:
    """Return the network, with the same weights, and channel dropout on its encoder's features.

    It is a separate network for ``torch.compile``. Attributes are copied: it does not notice if
    deep supervision of the original is switched later.

    Args:
        network: one of nnU-Net's or of segmentation-models-pytorch, with an ``encoder``.
        probability: of a channel to be dropped, in [0, 1); with 0 the network itself is returned.
        every_level: drop on every skip, not only on the bottleneck.

    Raises:
        UserError: the network has no encoder.
    """
    if probability == 0:
        return network
    encoder = getattr(network, "encoder", None)
    if encoder is None:
        raise UserError(
            f"this trainer drops features between encoder and decoder, but {type(network)} has no "
            f"'encoder'",
            fix="plan a U-Net of nnU-Net's, or choose another trainer",
        )
    return _replace_module(network, encoder, DroppingEncoder(encoder, probability, every_level))


def _replace_module(module: nn.Module, old: nn.Module, new: nn.Module) -> nn.Module:
    """Return a copy of the module with ``new`` for ``old``, sharing submodules without ``old``."""
    if module is old:
        return new
    children = dict(module._modules)
    for name, child in children.items():
        children[name] = child and _replace_module(child, old, new)
    if all(child is module._modules[name] for name, child in children.items()):
        return module
    copied = copy.copy(module)
    copied._modules = children
    return copied


@contextmanager
def freeze_batch_statistics(*networks: nn.Module) -> Iterator[None]:
    """Freeze the statistics of batch normalisation, which are used inside the block.

    Passes for pseudo labels must not mix unlabelled images into the statistics that are deployed.
    nnU-Net's own networks have none.

    >>> network = nn.BatchNorm2d(1)
    >>> with freeze_batch_statistics(network):
    ...     network.training
    False
    """
    layers = [
        module
        for network in networks
        for module in network.modules()
        if isinstance(module, _BatchNorm) and module.training
    ]
    for layer in layers:
        layer.eval()
    try:
        yield
    finally:
        for layer in layers:
            layer.train()
