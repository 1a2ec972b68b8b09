"""Make a deterministic network stochastic: channel dropout on the features of its encoder."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from semi_nnunet.util.errors import UserError


def drop_channels(features: torch.Tensor, probability: float) -> torch.Tensor:
    """Zero whole channels of (B, C, *spatial), rescale the rest (Tompson et al. 2015)."""
    shape = features.shape[:2] + (1,) * (features.ndim - 2)
    keep = torch.rand(shape, device=features.device) >= probability
    return features * keep / (1.0 - probability)


class DroppingEncoder(nn.Module):
    """An encoder of which channels of the features are dropped.

    Args:
        encoder: returns the skip features, bottleneck last.
        probability: of a channel to be dropped, in (0, 1).
        every_level: drop on every skip, not on the bottleneck alone.
    """

    def __init__(self, encoder: nn.Module, probability: float, every_level: bool):
        super().__init__()
        self.encoder, self.probability, self.every_level = encoder, probability, every_level

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        *skips, bottleneck = self.encoder(x)
        if self.every_level:
            skips = [drop_channels(skip, self.probability) for skip in skips]
        return [*skips, drop_channels(bottleneck, self.probability)]


def with_feature_dropout(
    network: nn.Module, probability: float, every_level: bool = False
) -> nn.Module:
    """The same network, with the same weights, whose encoder drops channels of its features.

    It is a network of its own for ``torch.compile``. What else both share is that of now: whether a
    decoder has deep supervision is not seen when it changes later.

    Args:
        network: one of nnU-Net's or of segmentation-models-pytorch, with an ``encoder``.
        probability: of a channel to be dropped, in [0, 1); with 0 the network itself is returned.
        every_level: drop on every skip, not on the bottleneck alone.

    Raises:
        UserError: the network has no encoder.
    """
    if probability == 0:
        return network
    encoder = getattr(network, "encoder", None)
    if encoder is None:
        raise UserError(
            f"this trainer disturbs the features between encoder and decoder; {type(network)} has "
            f"no 'encoder'",
            fix="plan a U-Net of nnU-Net's, or choose another trainer",
        )
    return _with_part(network, encoder, DroppingEncoder(encoder, probability, every_level))


def _with_part(module: nn.Module, part: nn.Module, other: nn.Module) -> nn.Module:
    """The module with ``other`` in place of ``part``; what does not contain it is shared."""
    if module is part:
        return other
    children = dict(module._modules)
    for name, child in children.items():
        children[name] = child and _with_part(child, part, other)
    if all(child is module._modules[name] for name, child in children.items()):
        return module
    copied = copy.copy(module)
    copied._modules = children
    return copied


@contextmanager
def statistics_kept(*networks: nn.Module) -> Iterator[None]:
    """Inside the block, batch normalisation uses its statistics and does not learn from the batch.

    Predicting for pseudo labels must not mix the unlabelled images into the statistics that are
    deployed. nnU-Net's own networks have none.
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
