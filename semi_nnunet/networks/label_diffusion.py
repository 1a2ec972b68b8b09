"""The diffusion branch of A&D: labels are noised, denoised given the image, and sampled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from semi_nnunet.core.noise_schedule import NoiseSchedule
from semi_nnunet.core.pseudo_labels import to_probs
from semi_nnunet.core.stochastic import statistics_kept
from semi_nnunet.networks.diffusion_branches import DiffusionBranches
from semi_nnunet.settings import rules
from semi_nnunet.settings.common import CutMixSettings
from semi_nnunet.settings.schema import planned, setting


def paper_or(paper: Any, ours: Any, why: str = "", **limits: Any) -> Any:
    """A setting whose default depends on ``fidelity``; a rule in place of a value plans it."""

    def rule(facts: Any, values: Any) -> tuple[Any, str]:
        faithful = values["fidelity"] == "paper"
        chosen = paper if faithful else ours
        return (
            chosen(facts, values)
            if callable(chosen)
            else (chosen, "the paper's" if faithful else why)
        )

    return planned(rule, **limits)


def start_of_theta(facts: rules.Facts, values: Mapping[str, Any]) -> rules.Planned:
    """When pseudo labels begin to count by the trust in theta, where theta learns without them."""
    if values.get("theta_on_labels") is False:
        return (
            0,
            "theta learns from pseudo labels alone, which cannot wait until it knows something",
        )
    return rules.unlabelled_start_steps(facts, values)


@dataclass(frozen=True, kw_only=True)
class FidelitySettings(CutMixSettings):
    """The settings of other trainers that the paper has otherwise."""

    fidelity: str = setting(
        "improved", "the paper's settings do not reproduce", choices=("improved", "paper")
    )
    momentum: float = paper_or(0.9, 0.99, "nnU-Net's", low=0, below=1)
    gradient_clip: float = paper_or(0.0, 12.0, "nnU-Net's limit on the norm; 0: none", low=0)
    unlabelled_start_steps: int = paper_or(0, start_of_theta, low=0)
    ramp_up_steps: int = paper_or(rules.every_step, rules.ramp_up_steps, low=0)
    appearance_strength: float = paper_or(0.0, rules.appearance_strength, low=0)
    unlabelled_rotation_and_scaling: bool = paper_or(
        True, False, "the branches are surest on the image as it is"
    )
    cutmix_probability: float = paper_or(0.0, 1.0, "every patch is mixed", low=0, high=1)


@dataclass(frozen=True, kw_only=True)
class LabelDiffusionSettings(FidelitySettings):
    """How labels are noised and sampled."""

    sampling_steps: int = paper_or(10, 1, "as good as ten at a tenth of the cost", low=1)
    sampling_interval_steps: int = setting(1, "xi is asked every so many steps", low=1)
    clamped_logits: bool = paper_or(
        True, False, "every DDIM step makes clamped logits worse: x_0 is b (2 p - 1) of soft-max p"
    )
    label_scale: float = paper_or(
        1.0, 0.2, "b: labels small beside the noise, so that the image is needed", low=0.01, high=1
    )
    time_power: float = paper_or(
        1.0, 3.0, "t has density t^2, drawn towards T, where sampling begins (1: uniform)", low=1
    )
    begins_with_image: bool = paper_or(
        False, True, "weights of noisy labels and of time begin at zero (as ControlNet, DiT)"
    )
    reparameterised: bool = paper_or(
        True, False, "Gumbel noise and smoothing of samples blur small organs"
    )


class LabelDiffusion(nn.Module):
    """The diffusion branch of A&D: labels are noised, denoised given the image, and sampled.

    Args:
        branches: the networks.
        exclusive: softmax classes, or regions (sigmoid).
        settings: how labels are noised and sampled.
    """

    def __init__(
        self, branches: DiffusionBranches, exclusive: bool, settings: LabelDiffusionSettings
    ):
        super().__init__()
        self.branches, self.schedule = branches, NoiseSchedule()
        self.exclusive, self.settings = exclusive, settings
        if settings.begins_with_image:
            branches.begin_with_image()

    def to_signal(self, probs: torch.Tensor) -> torch.Tensor:
        """x_0 = b (2 y - 1) of labels or probabilities y."""
        return self.settings.label_scale * (2.0 * probs - 1.0)

    def from_logits(self, logits: torch.Tensor) -> torch.Tensor:
        """x_0 as the network predicts it."""
        if self.settings.clamped_logits:
            return logits.float().clamp(-1.0, 1.0)
        return self.to_signal(to_probs(logits, self.exclusive))

    def denoise_labels(
        self, encoder: nn.Module, x: torch.Tensor, target: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        """Logits of labels (B, C, *spatial) that were noised at random times.

        Where the mask (B, 1, *spatial) is False nothing is known: x_0 is 0, no class at all.
        """
        t = self.schedule.sample_t(len(target), self.settings.time_power)
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
        """The same, sampled by the diffusion branch from pure noise."""
        shape = (len(x), self.branches.num_classes, *x.shape[2:])
        with statistics_kept(encoder, self):
            logits = self.schedule.ddim(
                lambda x_t, t: self.branches.denoise(encoder, x, x_t, t).float(),
                self.from_logits,
                torch.randn(shape, device=x.device),
                self.settings.sampling_steps,
            )
        if not self.settings.reparameterised:
            return to_probs(logits, self.exclusive)
        x_0 = self.from_logits(logits)
        if self.exclusive:
            return smooth(F.gumbel_softmax(x_0, tau=1.0, dim=1))
        return smooth(torch.sigmoid(x_0 + torch.randn_like(x_0)))


def smooth(probs: torch.Tensor) -> torch.Tensor:
    """Gaussian of sd 1 on 3 voxels along every axis, each channel alone, zero outside (paper)."""
    kernel = torch.exp(-torch.tensor([1.0, 0.0, 1.0]) / 2).to(probs)
    kernel = kernel / kernel.sum()
    channels, convolve = probs.shape[1], F.conv2d if probs.ndim == 4 else F.conv3d
    for axis in range(2, probs.ndim):
        shape, padding = [1] * (probs.ndim - 2), [0] * (probs.ndim - 2)
        shape[axis - 2], padding[axis - 2] = 3, 1
        weight = kernel.view(1, 1, *shape).expand(channels, 1, *shape)
        probs = convolve(probs, weight, padding=tuple(padding), groups=channels)
    return probs
