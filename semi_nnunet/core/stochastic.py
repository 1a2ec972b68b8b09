"""Make a deterministic network stochastic for a while: channel dropout on encoder features."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from semi_nnunet.util.errors import UserError


def drop_channels(features: torch.Tensor, probability: float) -> torch.Tensor:
    """Zero whole channels of (B, C, *spatial), rescale the rest (Tompson et al. 2015)."""
    shape = features.shape[:2] + (1,) * (features.ndim - 2)
    keep = torch.rand(shape, device=features.device) >= probability
    return features * keep / (1.0 - probability)


@contextmanager
def feature_dropout(
    network: nn.Module, probability: float, every_level: bool = False
) -> Iterator[None]:
    """Inside the block, drop channels of the features that ``network.encoder`` returns.

    Args:
        network: an nnU-Net network, whose encoder returns its skip features, bottleneck last.
        probability: of a channel to be dropped, in [0, 1); 0 changes nothing.
        every_level: drop on every skip, not on the bottleneck alone.

    Raises:
        UserError: the network has no encoder.
    """

    def hook(module: nn.Module, inputs: Any, skips: Any) -> Any:
        first = 0 if every_level else len(skips) - 1
        return [
            drop_channels(skip, probability) if level >= first else skip
            for level, skip in enumerate(skips)
        ]

    if probability == 0:
        yield
        return
    encoder = getattr(network, "encoder", None)
    if encoder is None:
        raise UserError(
            f"this trainer disturbs the features between encoder and decoder; {type(network)} has "
            f"no 'encoder'. Fix: plan a U-Net of nnU-Net's, or choose another trainer"
        )
    handle = encoder.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


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
