"""The diffusion branch of A&D: labels are noised, denoised given the image, and sampled."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from semi_nnunet.core.noise_schedule import NoiseSchedule
from semi_nnunet.core.pseudo_labels import to_probs
from semi_nnunet.core.stochastic import statistics_kept
from semi_nnunet.networks.diffusion_branches import DiffusionBranches


class LabelDiffusion(nn.Module):
    """The diffusion branch of A&D: labels are noised, denoised given the image, and sampled.

    Args:
        branches: the networks.
        exclusive: softmax classes, or regions (sigmoid).
        label_scale: b, the size of labels beside the noise.
        time_power: p; t has the density of t^(p - 1), drawn towards T where it is above 1.
        sampling_steps: of DDIM.
        clamped_logits: x_0 is the clamped logits, as in the paper, instead of b (2 p - 1) of their
            probabilities p.
        reparameterised: samples get Gumbel noise and are smoothed, as in the paper.
    """

    def __init__(
        self,
        branches: DiffusionBranches,
        exclusive: bool,
        label_scale: float,
        time_power: float,
        sampling_steps: int,
        clamped_logits: bool,
        reparameterised: bool,
    ):
        super().__init__()
        self.branches, self.schedule = branches, NoiseSchedule()
        self.exclusive = exclusive
        self.label_scale, self.time_power = label_scale, time_power
        self.sampling_steps = sampling_steps
        self.clamped_logits, self.reparameterised = clamped_logits, reparameterised

    def to_signal(self, probs: torch.Tensor) -> torch.Tensor:
        """x_0 = b (2 y - 1) of labels or probabilities y."""
        return self.label_scale * (2.0 * probs - 1.0)

    def from_logits(self, logits: torch.Tensor) -> torch.Tensor:
        """x_0 as the network predicts it."""
        if self.clamped_logits:
            return logits.float().clamp(-1.0, 1.0)
        return self.to_signal(to_probs(logits, self.exclusive))

    def denoise_labels(
        self, encoder: nn.Module, x: torch.Tensor, target: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        """Logits of labels (B, C, *spatial) that were noised at random times.

        Where the mask (B, 1, *spatial) is False nothing is known: x_0 is 0, no class at all.
        """
        t = self.schedule.sample_t(len(target), self.time_power)
        x_0 = self.to_signal(target) * mask
        x_t = self.schedule.q_sample(x_0, t, torch.randn_like(target))
        return self.branches.denoise(encoder, x, x_t, t)

    @torch.no_grad()
    def psi_probs(self, encoder: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """Probabilities (B, C, *spatial) of an image's labels, by the branch without noise."""
        with statistics_kept(encoder, self):
            return to_probs(self.branches.predict_psi(encoder, x), self.exclusive)

    @torch.no_grad()
    def xi_probs(self, encoder: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """Probabilities of an image's labels, sampled by the diffusion branch from pure noise."""
        shape = (len(x), self.branches.num_classes, *x.shape[2:])
        with statistics_kept(encoder, self):
            logits = self.schedule.ddim(
                lambda x_t, t: self.branches.denoise(encoder, x, x_t, t).float(),
                self.from_logits,
                torch.randn(shape, device=x.device),
                self.sampling_steps,
            )
        if not self.reparameterised:
            return to_probs(logits, self.exclusive)
        x_0 = self.from_logits(logits)
        if self.exclusive:
            return smooth(F.gumbel_softmax(x_0, tau=1.0, dim=1))
        return smooth(torch.sigmoid(x_0 + torch.randn_like(x_0)))


def smooth(probs: torch.Tensor) -> torch.Tensor:
    """Gaussian of sd 1 on 3 voxels along every axis, each channel alone, zero outside (paper)."""
    offsets = torch.arange(-1.0, 2.0, device=probs.device)
    kernel = torch.exp(-(offsets**2) / 2).to(probs.dtype)
    kernel = kernel / kernel.sum()
    channels, convolve = probs.shape[1], F.conv2d if probs.ndim == 4 else F.conv3d
    for axis in range(2, probs.ndim):
        shape, padding = [1] * (probs.ndim - 2), [0] * (probs.ndim - 2)
        shape[axis - 2], padding[axis - 2] = 3, 1
        weight = kernel.view(1, 1, *shape).expand(channels, 1, *shape)
        probs = convolve(probs, weight, padding=tuple(padding), groups=channels)
    return probs
