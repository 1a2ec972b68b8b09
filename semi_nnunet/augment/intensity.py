"""Appearance changes of normalised images (mean about 0, sd about 1), one class each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from semi_nnunet.augment.base import BatchTransform, Params, per_sample, sample_uniform


def gaussian_kernels(sigma: torch.Tensor, radius: int) -> torch.Tensor:
    """Return normalised Gaussian kernels (B, 2 radius + 1) of widths sigma (B,), in voxels.

    >>> gaussian_kernels(torch.tensor([1.0]), 1)
    tensor([[0.2741, 0.4519, 0.2741]])
    """
    offsets = torch.arange(-radius, radius + 1, device=sigma.device, dtype=sigma.dtype)
    kernels = torch.exp(-((offsets / sigma[:, None]) ** 2) / 2)
    return kernels / kernels.sum(1, keepdim=True)


def convolve_axes(x: torch.Tensor, kernels: Sequence[torch.Tensor], border: str) -> torch.Tensor:
    """Convolve each spatial axis by its kernels: sums of shifted copies.

    Grouped convolutions, which would do the same, are slow.

    Args:
        x: (B, C, *spatial).
        kernels: for each spatial axis, of each sample (B, 2 radius + 1).
        border: mode of :func:`torch.nn.functional.pad`.
    """
    for axis, weights in enumerate(kernels, start=2):
        size, radius = x.shape[axis], weights.shape[1] // 2
        padding = [0, 0] * (x.ndim - 2)
        padding[2 * (x.ndim - 1 - axis)] = padding[2 * (x.ndim - 1 - axis) + 1] = radius
        padded = F.pad(x, padding, mode=border)
        convolved = torch.zeros_like(x)
        for k in range(weights.shape[1]):
            convolved.addcmul_(padded.narrow(axis, k, size), per_sample(weights[:, k], x))
        x = convolved
    return x


class Brightness(BatchTransform):
    """x * factor + shift per sample and channel; factor in 1 +- scale, shift in +- shift sd."""

    def __init__(self, scale: float, shift: float, probability: float = 0.5):
        super().__init__(probability)
        self.scale, self.shift = scale, shift

    def sample_params(self, x: torch.Tensor) -> Params:
        size = tuple(x.shape[:2])
        return {
            "factor": sample_uniform(1 - self.scale, 1 + self.scale, size, x.device),
            "shift": sample_uniform(-self.shift, self.shift, size, x.device),
        }

    def apply(self, x: torch.Tensor, params: Params) -> torch.Tensor:
        return x * per_sample(params["factor"], x) + per_sample(params["shift"], x)


class Gamma(BatchTransform):
    """A power exp(u), u in +- log_gamma, of each channel, mapped to [0, 1] and back.

    >>> x = torch.tensor([0.0, 1.0, 2.0]).view(1, 1, 3)
    >>> Gamma(0.6).apply(x, {"gamma": torch.tensor([[2.0]])}).flatten()
    tensor([0.0000, 0.5000, 2.0000])
    """

    def __init__(self, log_gamma: float, probability: float = 0.5):
        super().__init__(probability)
        self.log_gamma = log_gamma

    def sample_params(self, x: torch.Tensor) -> Params:
        size = tuple(x.shape[:2])
        return {"gamma": sample_uniform(-self.log_gamma, self.log_gamma, size, x.device).exp()}

    def apply(self, x: torch.Tensor, params: Params) -> torch.Tensor:
        axes = tuple(range(2, x.ndim))
        low, high = x.amin(axes, keepdim=True), x.amax(axes, keepdim=True)
        span = (high - low).clamp_min(1e-6)
        return ((x - low) / span).clamp(0, 1) ** per_sample(params["gamma"], x) * span + low


class GaussianNoise(BatchTransform):
    """White noise whose standard deviation is drawn in [0, sd] per sample."""

    def __init__(self, sd: float, probability: float = 0.5):
        super().__init__(probability)
        self.sd = sd

    def sample_params(self, x: torch.Tensor) -> Params:
        sd = sample_uniform(0, self.sd, (x.shape[0],), x.device)
        return {"sd": sd, "noise": torch.randn_like(x)}

    def apply(self, x: torch.Tensor, params: Params) -> torch.Tensor:
        return x + per_sample(params["sd"], x) * params["noise"]


class GaussianBlur(BatchTransform):
    """A separable Gaussian blur of each sample, sigma in [low, high] voxels, radius 2 voxels."""

    radius = 2

    def __init__(self, low: float, high: float, probability: float = 0.3):
        super().__init__(probability)
        self.low, self.high = low, high

    def sample_params(self, x: torch.Tensor) -> Params:
        return {"sigma": sample_uniform(self.low, self.high, (x.shape[0],), x.device)}

    def apply(self, x: torch.Tensor, params: Params) -> torch.Tensor:
        sigma = params["sigma"].to(x.dtype).clamp_min(0.01)  # 0 would divide 0 by 0
        kernels = gaussian_kernels(sigma, self.radius)
        return convolve_axes(x, [kernels] * (x.ndim - 2), "replicate")


def make_appearance_changes(strength: float, probability: float = 0.5) -> list[BatchTransform]:
    """Return the appearance changes of a strong view: a prototype's ranges times ``strength``."""
    if strength == 0 or probability == 0:
        return []
    return [
        Brightness(min(0.3 * strength, 0.9), 0.3 * strength, probability),
        Gamma(0.6 * strength, probability),
        GaussianNoise(0.3 * strength, probability),
        GaussianBlur(0.5, 0.5 + 0.5 * strength, 0.6 * probability),
    ]


def add_clamped_noise(x: torch.Tensor, sd: float) -> torch.Tensor:
    """Add noise clamp(N(0, sd), -2 sd, 2 sd), as the published medical Mean Teachers do."""
    return x + (torch.randn_like(x) * sd).clamp(-2 * sd, 2 * sd) if sd else x
