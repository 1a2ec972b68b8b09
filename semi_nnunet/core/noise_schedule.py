"""Diffusion of labels: noising (DDPM) and deterministic sampling (DDIM), predicting x_0.

Ho et al. 2020, arXiv:2006.11239; Song et al. 2021, arXiv:2010.02502. The letters are the papers':
x_0, x_t, t in 0 ... T - 1, alpha_bar.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


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
