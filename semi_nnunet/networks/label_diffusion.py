"""The diffusion branch of A&D: noising, denoising given the image, and sampling of labels.

Noising as in DDPM (Ho et al. 2020, arXiv:2006.11239) and deterministic sampling as in DDIM (Song et
al. 2021, arXiv:2010.02502), predicting x_0. The letters are the papers': x_0, x_t, alpha_bar, and t
in 0 ... T - 1.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from semi_nnunet.augment.intensity import gaussian_kernels
from semi_nnunet.core.partial_labels import find_certain_voxels
from semi_nnunet.core.pseudo_labels import to_probs
from semi_nnunet.core.stochastic import freeze_batch_statistics
from semi_nnunet.networks.diffusion_branches import DiffusionBranches


class NoiseSchedule(nn.Module):
    """Linear betas from 1e-4 to 0.02 over T = 1000 steps, scaled for another T.

    >>> NoiseSchedule().sampling_times(3)
    [999, 500, 0]

    Args:
        steps: T.
    """

    alpha_bar: torch.Tensor

    def __init__(self, steps: int = 1000):
        super().__init__()
        self.steps = steps
        betas = torch.linspace(1e-4, 0.02, steps, dtype=torch.float64) * (1000 / steps)
        alpha_bar = torch.cumprod(1.0 - betas, 0).float()
        self.register_buffer("alpha_bar", alpha_bar, persistent=False)

    def at(self, t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Return alpha_bar_t of steps (B,), shaped to multiply (B, C, *spatial)."""
        return self.alpha_bar[t].view(-1, *[1] * (x.ndim - 1))

    def sample_t(self, batch_size: int, power: float) -> torch.Tensor:
        """Sample steps (B,) with density proportional to t^(power - 1); 1 is uniform."""
        u = torch.rand(batch_size, device=self.alpha_bar.device)
        return (u ** (1.0 / power) * self.steps).long().clamp_max(self.steps - 1)

    def q_sample(self, x_0: torch.Tensor, t: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Return x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise (DDPM, eq. 4)."""
        alpha_bar = self.at(t, x_0)
        return alpha_bar.sqrt() * x_0 + (1.0 - alpha_bar).sqrt() * noise

    def ddim_step(
        self, x_t: torch.Tensor, x_0: torch.Tensor, t: torch.Tensor, t_next: torch.Tensor
    ) -> torch.Tensor:
        """Return x at ``t_next`` < ``t`` from x_t and the predicted x_0, eta = 0 (DDIM, eq. 12)."""
        alpha_bar, alpha_bar_next = self.at(t, x_t), self.at(t_next, x_t)
        noise = (x_t / alpha_bar.sqrt() - x_0) / (1.0 / alpha_bar - 1.0).sqrt()
        return alpha_bar_next.sqrt() * x_0 + (1.0 - alpha_bar_next).sqrt() * noise

    def sampling_times(self, count: int) -> list[int]:
        """Return ``count`` evenly spaced steps from T - 1 to 0; for a count of 1: T - 1."""
        if count == 1:
            return [self.steps - 1]
        return [round(i * (self.steps - 1) / (count - 1)) for i in reversed(range(count))]

    @torch.no_grad()
    def ddim(
        self,
        predict: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        to_x_0: Callable[[torch.Tensor], torch.Tensor],
        noise: torch.Tensor,
        count: int,
    ) -> torch.Tensor:
        """Sample from noise in ``count`` steps; return the last prediction of the network.

        Args:
            predict: (x_t, t (B,)) -> output of the network.
            to_x_0: converts an output of the network into x_0.
            noise: x_T, (B, C, *spatial).
            count: passes through the network.
        """
        x_t, times = noise, self.sampling_times(count)
        for step, time in enumerate(times):
            t = torch.full((noise.shape[0],), time, device=noise.device)
            prediction = predict(x_t, t)
            if step + 1 < count:
                t_next = torch.full_like(t, times[step + 1])
                x_t = self.ddim_step(x_t, to_x_0(prediction), t, t_next)
        return prediction


class LabelDiffusion(nn.Module):
    """A diffusion model of labels, conditioned on the image.

    Args:
        branches: the networks.
        exclusive: softmax classes; otherwise sigmoid regions.
        label_scale: b, the size of labels relative to the noise.
        time_power: p; t has density t^(p - 1), and is drawn towards T if p is above 1.
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
        """Return x_0 = b (2 y - 1) of labels or probabilities y."""
        return self.label_scale * (2.0 * probs - 1.0)

    def from_logits(self, logits: torch.Tensor) -> torch.Tensor:
        """Return x_0 as predicted by the network."""
        if self.clamped_logits:
            return logits.float().clamp(-1.0, 1.0)
        return self.to_signal(to_probs(logits, self.exclusive))

    def denoise_labels(
        self,
        encoder: nn.Module,
        x: torch.Tensor,
        target: torch.Tensor,
        mask: torch.Tensor,
        annotated: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the logits of labels that were noised at random times.

        Voxels outside the mask, or whose class is uncertain because it was not annotated, have
        x_0 = 0, no class.

        Args:
            encoder: of the student.
            x: images (B, C, *spatial).
            target: one-hot labels or regions (B, classes, *spatial).
            mask: bool (B, 1, *spatial).
            annotated: see :mod:`semi_nnunet.core.partial_labels`.
        """
        certain = find_certain_voxels(target, mask, annotated, self.exclusive)
        t = self.schedule.sample_t(len(target), self.time_power)
        x_0 = self.to_signal(target) * certain
        x_t = self.schedule.q_sample(x_0, t, torch.randn_like(target))
        return self.branches.denoise(encoder, x, x_t, t)

    @torch.no_grad()
    def psi_probs(self, encoder: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """Return the probabilities (B, C, *spatial) that the branch without noise predicts."""
        with freeze_batch_statistics(encoder, self):
            return to_probs(self.branches.predict_psi(encoder, x), self.exclusive)

    @torch.no_grad()
    def xi_probs(self, encoder: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """Return the probabilities that the diffusion branch samples from pure noise."""
        shape = (len(x), self.branches.num_classes, *x.shape[2:])
        with freeze_batch_statistics(encoder, self):
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
            return smooth_probs(F.gumbel_softmax(x_0, tau=1.0, dim=1))
        return smooth_probs(torch.sigmoid(x_0 + torch.randn_like(x_0)))


def smooth_probs(probs: torch.Tensor) -> torch.Tensor:
    """Smooth each channel by a Gaussian of sd 1 on 3 voxels along every axis; zero outside (paper).

    >>> smooth_probs(torch.ones(1, 1, 3, 3))[0, 0, 1]
    tensor([0.7259, 1.0000, 0.7259])
    """
    kernel = gaussian_kernels(torch.ones(1, dtype=probs.dtype, device=probs.device), 1)[0]
    channels, convolve = probs.shape[1], F.conv2d if probs.ndim == 4 else F.conv3d
    for axis in range(2, probs.ndim):
        shape, padding = [1] * (probs.ndim - 2), [0] * (probs.ndim - 2)
        shape[axis - 2], padding[axis - 2] = 3, 1
        weight = kernel.view(1, 1, *shape).expand(channels, 1, *shape)
        probs = convolve(probs, weight, padding=tuple(padding), groups=channels)
    return probs
