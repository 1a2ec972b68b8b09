"""What A&D adds to a planned U-Net: a stem for noisy labels, time, and two decoders.

Wang & Li, NeurIPS 2023, arXiv:2310.11320, sec. 3. The U-Net's own encoder is shared by all three
paths and its own decoder is theta, so that what is deployed is the planned network, under its
plain keys.

Differs from the paper: the network is nnU-Net's plan in place of a V-Net; the embedded time is
added after every stage (there: after nearly every block); psi and theta read the image through the
U-Net's own first layers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from semi_nnunet.core.noise_schedule import NoiseSchedule
from semi_nnunet.core.pseudo_labels import to_probs
from semi_nnunet.errors import UserError

EMBEDDING, HIDDEN = 128, 512


def time_embedding(t: torch.Tensor, size: int = EMBEDDING) -> torch.Tensor:
    """Sinusoids (B, size) of steps (B,) (Vaswani et al. 2017)."""
    half = size // 2
    frequencies = torch.exp(-math.log(10000.0) * torch.arange(half, device=t.device) / half)
    angles = t.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], 1)


class DiffusionBranches(nn.Module):
    """The parts of A&D that are trained beside the student.

    Args:
        wider: a network of the student's plan whose input is the image and one channel for each
            class; its first layers become the stem of noisy labels, its decoder xi.
        psi: another network of the student's plan, whose decoder becomes psi.
    """

    def __init__(self, wider: nn.Module, psi: nn.Module):
        super().__init__()
        for network in (wider, psi):
            require_unet(network)
        encoder = wider.encoder
        stem = getattr(encoder, "stem", None)
        self.replaces_stage = stem is None  # else the stem before the stages
        self.stem = encoder.stages[0] if stem is None else stem
        self.xi, self.psi = without_encoder(wider.decoder), without_encoder(psi.decoder)
        channels = list(encoder.output_channels)
        self.time = nn.Sequential(
            nn.Linear(EMBEDDING, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, HIDDEN), nn.SiLU()
        )
        self.to_encoder = nn.ModuleList(nn.Linear(HIDDEN, count) for count in channels)
        self.to_decoder = nn.ModuleList(nn.Linear(HIDDEN, c) for c in reversed(channels[:-1]))

    def predict_psi(self, encoder: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """psi's full-resolution logits (B, C, *spatial) of an image."""
        return decode(self.psi, encoder(x), None)

    def denoise(
        self, encoder: nn.Module, x: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor
    ) -> torch.Tensor:
        """xi's logits of x_0, from image, noisy labels x_t (B, C, *spatial) and t (B,)."""
        embedded = self.time(time_embedding(t))
        h = self.stem(torch.cat([x, x_t], 1))
        stages = list(encoder.stages)
        skips = []
        for level, stage in enumerate(stages):
            h = h if level == 0 and self.replaces_stage else stage(h)
            h = h + bias(self.to_encoder[level], embedded, h)
            skips.append(h)
        return decode(self.xi, skips, [(layer, embedded) for layer in self.to_decoder])


def decode(
    decoder: nn.Module,
    skips: Sequence[torch.Tensor],
    times: Sequence[tuple[nn.Module, torch.Tensor]] | None,
) -> torch.Tensor:
    """nnU-Net's decoder at full resolution, with the embedded time added after every stage."""
    x = skips[-1]
    for level, (up, stage) in enumerate(zip(decoder.transpconvs, decoder.stages, strict=True)):
        x = stage(torch.cat([up(x), skips[-(level + 2)]], 1))
        if times is not None:
            x = x + bias(*times[level], x)
    return decoder.seg_layers[-1](x)


def bias(layer: nn.Module, embedded: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The embedded time (B, HIDDEN) as (B, channels, 1, ...)."""
    return layer(embedded).view(*like.shape[:2], *[1] * (like.ndim - 2))


def without_encoder(decoder: nn.Module) -> nn.Module:
    """nnU-Net's decoders carry their encoder along; these use the student's."""
    decoder.encoder = None
    return decoder


def require_unet(network: nn.Module) -> None:
    """Check that a network has the parts that are shared.

    Raises:
        UserError: it has not.
    """
    decoder = getattr(network, "decoder", None)
    parts = [
        getattr(getattr(network, "encoder", None), "stages", None),
        *(getattr(decoder, name, None) for name in ("transpconvs", "stages", "seg_layers")),
    ]
    if any(part is None for part in parts):
        raise UserError(
            f"SemiDiffusionTrainer shares the encoder of a U-Net of nnU-Net's (PlainConvUNet, "
            f"ResidualEncoderUNet), got {type(network).__name__}. Fix: plan one of these, or "
            f"choose another trainer"
        )


class LabelDiffusion(nn.Module):
    """The diffusion branch of A&D: labels are noised, denoised given the image, and sampled.

    Args:
        branches: the networks.
        exclusive: softmax classes, or regions (sigmoid).
        label_scale: b of x_0 = b (2 y - 1); small beside the noise, so that the image is needed.
        time_power: t has density proportional to t^(time_power - 1); 1 is uniform.
        clamped_logits: x_0 is the clamped logits (the paper's), else b (2 p - 1) of probabilities.
        reparameterised: samples get Gumbel noise and are smoothed (the paper's).
        sampling_steps: network passes of a sample.
    """

    def __init__(
        self,
        branches: DiffusionBranches,
        exclusive: bool,
        label_scale: float,
        time_power: float,
        clamped_logits: bool,
        reparameterised: bool,
        sampling_steps: int,
    ):
        super().__init__()
        self.branches, self.schedule = branches, NoiseSchedule()
        self.exclusive, self.label_scale, self.time_power = exclusive, label_scale, time_power
        self.clamped_logits, self.reparameterised = clamped_logits, reparameterised
        self.sampling_steps = sampling_steps

    def to_signal(self, probs: torch.Tensor) -> torch.Tensor:
        """x_0 of labels or probabilities."""
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
    def sample(self, encoder: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """Probabilities (B, C, *spatial) of an image's labels, from pure noise."""
        shape = (len(x), self.branches.xi.num_classes, *x.shape[2:])
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
    kernel = torch.exp(-torch.tensor([1.0, 0.0, 1.0]) / 2).to(probs)
    kernel = kernel / kernel.sum()
    channels, convolve = probs.shape[1], F.conv2d if probs.ndim == 4 else F.conv3d
    for axis in range(2, probs.ndim):
        shape, padding = [1] * (probs.ndim - 2), [0] * (probs.ndim - 2)
        shape[axis - 2], padding[axis - 2] = 3, 1
        weight = kernel.view(1, 1, *shape).expand(channels, 1, *shape)
        probs = convolve(probs, weight, padding=tuple(padding), groups=channels)
    return probs
