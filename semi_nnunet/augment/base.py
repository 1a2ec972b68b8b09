"""The base class of transforms that run on whole batches on the device."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch

Params = dict[str, torch.Tensor]


def per_sample(values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Reshape (B,) or (B, C) so that it broadcasts against ``x`` (B, C, *spatial).

    >>> per_sample(torch.ones(2), torch.zeros(2, 3, 4, 5)).shape
    torch.Size([2, 1, 1, 1])
    """
    return values.view(values.shape + (1,) * (x.ndim - values.ndim))


def sample_uniform(
    low: float, high: float, shape: tuple[int, ...], device: torch.device
) -> torch.Tensor:
    """Sample uniform random numbers in [low, high)."""
    return torch.rand(shape, device=device) * (high - low) + low


class BatchTransform(ABC):
    """An image transform with random parameters for every sample of a batch.

    Args:
        probability: of each sample to be transformed.
    """

    def __init__(self, probability: float):
        self.probability = probability

    @abstractmethod
    def sample_params(self, x: torch.Tensor) -> Params:
        """Sample parameters, first axis the sample, from torch's global generator."""

    @abstractmethod
    def apply(self, x: torch.Tensor, params: Params) -> torch.Tensor:
        """Transform ``x`` (B, C, *spatial) by ``params``; a pure function."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        is_changed = torch.rand(x.shape[0], device=x.device) < self.probability
        changed = self.apply(x, self.sample_params(x)).to(x.dtype)
        return torch.where(per_sample(is_changed, x), changed, x)
