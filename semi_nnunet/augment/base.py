"""The frame of every device-side transform."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch

Params = dict[str, torch.Tensor]


def per_sample(values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Reshape (B,) or (B, C) so that it broadcasts against ``x`` (B, C, *spatial)."""
    return values.view(values.shape + (1,) * (x.ndim - values.ndim))


def uniform(low: float, high: float, shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Random numbers in [low, high)."""
    return torch.rand(shape, device=device) * (high - low) + low


class BatchTransform(ABC):
    """An image transform that draws its own parameters for every sample of a batch.

    Args:
        probability: of each sample to be transformed.
    """

    def __init__(self, probability: float):
        self.probability = probability

    @abstractmethod
    def sample_params(self, x: torch.Tensor) -> Params:
        """Random parameters, first axis the sample, from torch's global generator."""

    @abstractmethod
    def apply(self, x: torch.Tensor, params: Params) -> torch.Tensor:
        """Transform ``x`` (B, C, *spatial) by ``params``; a pure function."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        chosen = torch.rand(x.shape[0], device=x.device) < self.probability
        changed = self.apply(x, self.sample_params(x)).to(x.dtype)
        return torch.where(per_sample(chosen, x), changed, x)
