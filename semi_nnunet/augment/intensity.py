"""Appearance changes of normalised images (mean about 0, sd about 1), one class each."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from semi_nnunet.augment.base import BatchTransform, Params, per_sample, uniform


def blur_axis(x: torch.Tensor, kernels: torch.Tensor, axis: int, border: str) -> torch.Tensor:
    """Convolve along an axis: a sum of shifted copies, as grouped convolutions are slow.

    Args:
        x: (B, C, *spatial).
        kernels: of each sample (B, 2 radius + 1).
        axis: of ``x``.
        border: mode of :func:`torch.nn.functional.pad`.
    """
    size, radius = x.shape[axis], kernels.shape[1] // 2
    padding = [0, 0] * (x.ndim - 2)
    padding[2 * (x.ndim - 1 - axis)] = padding[2 * (x.ndim - 1 - axis) + 1] = radius
    padded = F.pad(x, padding, mode=border)
    blurred = torch.zeros_like(x)
    for k in range(kernels.shape[1]):
        blurred.addcmul_(padded.narrow(axis, k, size), per_sample(kernels[:, k], x))
    return blurred


class Brightness(BatchTransform):
    """x * factor + shift per sample and channel; factor in 1 +- scale, shift in +- shift sd."""

    def __init__(self, scale: float, shift: float, probability: float = 0.5):
        super().__init__(probability)
        self.scale, self.shift = scale, shift

    def sample_params(self, x: torch.Tensor) -> Params:
        size = tuple(x.shape[:2])
        return {
            "factor": uniform(1 - self.scale, 1 + self.scale, size, x.device),
            "shift": uniform(-self.shift, self.shift, size, x.device),
        }

    def apply(self, x: torch.Tensor, params: Params) -> torch.Tensor:
        return x * per_sample(params["factor"], x) + per_sample(params["shift"], x)


class Gamma(BatchTransform):
    """Map each channel to [0, 1], raise it to exp(u), u in +- log_gamma, and map it back."""

    def __init__(self, log_gamma: float, probability: float = 0.5):
        super().__init__(probability)
        self.log_gamma = log_gamma

    def sample_params(self, x: torch.Tensor) -> Params:
        return {
            "gamma": uniform(-self.log_gamma, self.log_gamma, tuple(x.shape[:2]), x.device).exp()
        }

    def apply(self, x: torch.Tensor, params: Params) -> torch.Tensor:
        axes = tuple(range(2, x.ndim))
        low, high = x.amin(axes, keepdim=True), x.amax(axes, keepdim=True)
        span = (high - low).clamp_min(1e-6)
        return ((x - low) / span).clamp(0, 1) ** per_sample(params["gamma"], x) * span + low


class GaussianNoise(BatchTransform):
    """Add white noise whose standard deviation is drawn in [0, sd] per sample."""

    def __init__(self, sd: float, probability: float = 0.5):
        super().__init__(probability)
        self.sd = sd

    def sample_params(self, x: torch.Tensor) -> Params:
        return {"sd": uniform(0, self.sd, (x.shape[0],), x.device), "noise": torch.randn_like(x)}

    def apply(self, x: torch.Tensor, params: Params) -> torch.Tensor:
        return x + per_sample(params["sd"], x) * params["noise"]


class GaussianBlur(BatchTransform):
    """Blur each sample by a separable Gaussian, sigma in [low, high] voxels, radius 2 voxels."""

    radius = 2

    def __init__(self, low: float, high: float, probability: float = 0.3):
        super().__init__(probability)
        self.low, self.high = low, high

    def sample_params(self, x: torch.Tensor) -> Params:
        return {"sigma": uniform(self.low, self.high, (x.shape[0],), x.device)}

    def apply(self, x: torch.Tensor, params: Params) -> torch.Tensor:
        offsets = torch.arange(-self.radius, self.radius + 1, device=x.device, dtype=x.dtype)
        sigma = params["sigma"].to(x.dtype).clamp_min(0.01)  # 0 would divide 0 by 0
        kernels = torch.exp(-((offsets / sigma[:, None]) ** 2) / 2)
        kernels = kernels / kernels.sum(1, keepdim=True)
        for axis in range(2, x.ndim):
            x = blur_axis(x, kernels, axis, "replicate")
        return x


def appearance_changes(strength: float, probability: float = 0.5) -> list[BatchTransform]:
    """The appearance part of a strong view: a prototype's ranges, each times ``strength``."""
    if strength == 0 or probability == 0:
        return []
    return [
        Brightness(min(0.3 * strength, 0.9), 0.3 * strength, probability),
        Gamma(0.6 * strength, probability),
        GaussianNoise(0.3 * strength, probability),
        GaussianBlur(0.5, 0.5 + 0.5 * strength, 0.6 * probability),
    ]


def add_clamped_noise(x: torch.Tensor, sd: float) -> torch.Tensor:
    """x + clamp(N(0, sd), -2 sd, 2 sd), the input noise of the published medical Mean Teachers."""
    return x + (torch.randn_like(x) * sd).clamp(-2 * sd, 2 * sd) if sd else x
