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
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from semi_nnunet.util.errors import UserError

EMBEDDING, HIDDEN = 128, 512
Path = Callable[..., torch.Tensor]


def as_it_is(path: Path) -> Path:
    """Not compiled."""
    return path


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

    Attributes:
        run: a path through encoder and branch -> what runs it, such as a compiled one.
    """

    def __init__(self, wider: Any, psi: Any):
        super().__init__()
        for network in (wider, psi):
            require_unet(network)
        encoder = wider.encoder
        stem = getattr(encoder, "stem", None)
        self.replaces_stage = stem is None  # else the stem before the stages
        self.stem: nn.Module = encoder.stages[0] if stem is None else stem
        self.xi, self.psi = without_encoder(wider.decoder), without_encoder(psi.decoder)
        self.num_classes: int = psi.decoder.num_classes
        channels = list(encoder.output_channels)
        self.time = nn.Sequential(
            nn.Linear(EMBEDDING, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, HIDDEN), nn.SiLU()
        )
        self.to_encoder = nn.ModuleList(nn.Linear(HIDDEN, count) for count in channels)
        self.to_decoder = nn.ModuleList(nn.Linear(HIDDEN, c) for c in reversed(channels[:-1]))
        self.run: Callable[[Path], Path] = as_it_is

    @torch.no_grad()
    def begin_with_image(self) -> None:
        """Make noisy labels and time without effect until training gives them one.

        Zero weights at the start, as of ControlNet (Zhang et al. 2023) and DiT (Peebles & Xie
        2023): else xi first has to learn not to be disturbed by the noise.
        """
        convolutions = (m for m in self.stem.modules() if isinstance(m, (nn.Conv2d, nn.Conv3d)))
        next(convolutions).weight[:, -self.num_classes :] = 0
        for layer in (*self.to_encoder, *self.to_decoder):
            layer.weight.zero_()
            layer.bias.zero_()

    @torch.no_grad()
    def pull(self, theta: nn.Module, both: bool, share: float) -> None:
        """Move the weights of theta by ``share`` towards psi's, or the mean of xi's and psi's."""
        xi, psi = (dict(part.named_parameters()) for part in (self.xi, self.psi))
        for name, weight in theta.named_parameters():
            if name in psi:  # not the encoder that nnU-Net's decoders carry along
                weight.lerp_((xi[name] + psi[name]) / 2 if both else psi[name], share)

    def predict_psi(self, encoder: Any, x: torch.Tensor) -> torch.Tensor:
        """psi's full-resolution logits (B, C, *spatial) of an image."""
        return self.run(self.psi_path)(encoder, x)

    def psi_path(self, encoder: Any, x: torch.Tensor) -> torch.Tensor:
        """:meth:`predict_psi`, whatever :attr:`run` makes of it."""
        return decode(self.psi, encoder(x), None)

    def denoise(
        self, encoder: Any, x: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor
    ) -> torch.Tensor:
        """xi's logits of x_0, from image, noisy labels x_t (B, C, *spatial) and t (B,)."""
        return self.run(self.xi_path)(encoder, x, x_t, t)

    def xi_path(
        self, encoder: Any, x: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor
    ) -> torch.Tensor:
        """:meth:`denoise`, whatever :attr:`run` makes of it."""
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
    decoder: Any,
    skips: Sequence[torch.Tensor],
    times: Sequence[tuple[nn.Module, torch.Tensor]] | None,
) -> torch.Tensor:
    """nnU-Net's decoder: full-resolution logits, float32; the time is added after every stage."""
    x = skips[-1]
    for level, (up, stage) in enumerate(zip(decoder.transpconvs, decoder.stages, strict=True)):
        x = stage(torch.cat([up(x), skips[-(level + 2)]], 1))
        if times is not None:
            x = x + bias(*times[level], x)
    return decoder.seg_layers[-1](x).float()


def bias(layer: nn.Module, embedded: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The embedded time (B, HIDDEN) as (B, channels, 1, ...)."""
    return layer(embedded).view(*like.shape[:2], *[1] * (like.ndim - 2))


def without_encoder(decoder: Any) -> Any:
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
            f"ResidualEncoderUNet), got {type(network).__name__}",
            fix="plan one of these, or choose another trainer",
        )
