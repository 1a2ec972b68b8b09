"""The networks that A&D adds to a planned U-Net: a stem for noisy labels, time, and two decoders.

Wang & Li, NeurIPS 2023, arXiv:2310.11320, sec. 3. All three paths share the U-Net's own encoder,
and its own decoder is theta, so that the deployed network is the planned one, with its usual keys.

Differs from the paper: the network is nnU-Net's plan instead of a V-Net; the embedded time is added
after every stage (paper: after nearly every block); psi and theta read the image through the
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
NetworkPath = Callable[..., torch.Tensor]


def run_uncompiled(path: NetworkPath) -> NetworkPath:
    """Return the path itself."""
    return path


def time_embedding(t: torch.Tensor, size: int = EMBEDDING) -> torch.Tensor:
    """Return sinusoids (B, size) of steps (B,) (Vaswani et al. 2017).

    >>> time_embedding(torch.tensor([0]), 4)
    tensor([[1., 1., 0., 0.]])
    """
    half = size // 2
    frequencies = torch.exp(-math.log(10000.0) * torch.arange(half, device=t.device) / half)
    angles = t.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], 1)


class DiffusionBranches(nn.Module):
    """The modules of A&D that are trained in addition to the student.

    Args:
        wider: a network of the student's plan whose input is the image and one channel for each
            class; its first layers become the stem of noisy labels, its decoder xi.
        psi: another network of the student's plan, whose decoder becomes psi.

    Attributes:
        run: returns the function that runs a path through encoder and branch, such as the
            compiled path.
    """

    def __init__(self, wider: Any, psi: Any):
        super().__init__()
        for network in (wider, psi):
            require_planned_unet(network)
        encoder = wider.encoder
        stem = getattr(encoder, "stem", None)
        self.replaces_stage = stem is None  # otherwise the stem is in front of the stages
        self.stem: nn.Module = encoder.stages[0] if stem is None else stem
        self.xi, self.psi = drop_encoder(wider.decoder), drop_encoder(psi.decoder)
        self.num_classes: int = psi.decoder.num_classes
        channels = list(encoder.output_channels)
        self.time = nn.Sequential(
            nn.Linear(EMBEDDING, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, HIDDEN), nn.SiLU()
        )
        self.to_encoder = nn.ModuleList(nn.Linear(HIDDEN, count) for count in channels)
        self.to_decoder = nn.ModuleList(nn.Linear(HIDDEN, c) for c in reversed(channels[:-1]))
        self.run: Callable[[NetworkPath], NetworkPath] = run_uncompiled

    @torch.no_grad()
    def begin_with_image(self) -> None:
        """Zero the weights of noisy labels and time, so that training adds their effect gradually.

        As in ControlNet (Zhang et al. 2023) and DiT (Peebles & Xie 2023); otherwise xi first has
        to learn to ignore the noise.
        """
        convolutions = (m for m in self.stem.modules() if isinstance(m, (nn.Conv2d, nn.Conv3d)))
        next(convolutions).weight[:, -self.num_classes :] = 0
        for layer in (*self.to_encoder, *self.to_decoder):
            layer.weight.zero_()
            layer.bias.zero_()

    @torch.no_grad()
    def pull(self, theta: nn.Module, to_mean: bool, share: float) -> None:
        """Move theta's weights by ``share`` towards psi's, or the mean of xi's and psi's.

        The heads of deep supervision stay, as those of xi and psi are never trained.
        """
        xi, psi = (dict(decoder.named_parameters()) for decoder in (self.xi, self.psi))
        heads = len(getattr(self.psi, "seg_layers", ()))
        untrained = tuple(f"seg_layers.{number}." for number in range(heads - 1))
        for name, weight in theta.named_parameters():
            # not the encoder, which nnU-Net's decoders contain
            if name in psi and not name.startswith(untrained):
                weight.lerp_((xi[name] + psi[name]) / 2 if to_mean else psi[name], share)

    def predict_psi(self, encoder: Any, x: torch.Tensor) -> torch.Tensor:
        """Return psi's full-resolution logits (B, C, *spatial) of an image."""
        return self.run(self.psi_path)(encoder, x)

    def psi_path(self, encoder: Any, x: torch.Tensor) -> torch.Tensor:
        """Run the path of :meth:`predict_psi`; :attr:`run` may compile it."""
        return run_decoder(self.psi, encoder(x), None)

    def denoise(
        self, encoder: Any, x: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor
    ) -> torch.Tensor:
        """Return xi's logits of x_0, from image, noisy labels x_t (B, C, *spatial) and t (B,)."""
        return self.run(self.xi_path)(encoder, x, x_t, t)

    def xi_path(
        self, encoder: Any, x: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor
    ) -> torch.Tensor:
        """Run the path of :meth:`denoise`; :attr:`run` may compile it."""
        embedded = self.time(time_embedding(t))
        h = self.stem(torch.cat([x, x_t], 1))
        stages = list(encoder.stages)
        skips = []
        for level, stage in enumerate(stages):
            h = h if level == 0 and self.replaces_stage else stage(h)
            h = h + compute_time_bias(self.to_encoder[level], embedded, h)
            skips.append(h)
        return run_decoder(self.xi, skips, [(layer, embedded) for layer in self.to_decoder])


def run_decoder(
    decoder: Any,
    skips: Sequence[torch.Tensor],
    times: Sequence[tuple[nn.Module, torch.Tensor]] | None,
) -> torch.Tensor:
    """Run nnU-Net's decoder, adding the time after every stage; return float32 logits."""
    x = skips[-1]
    for level, (up, stage) in enumerate(zip(decoder.transpconvs, decoder.stages, strict=True)):
        x = stage(torch.cat([up(x), skips[-(level + 2)]], 1))
        if times is not None:
            x = x + compute_time_bias(*times[level], x)
    return decoder.seg_layers[-1](x).float()


def compute_time_bias(layer: nn.Module, embedded: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Return the embedded time (B, HIDDEN) as (B, channels, 1, ...), to be added to ``x``."""
    return layer(embedded).view(*x.shape[:2], *[1] * (x.ndim - 2))


def drop_encoder(decoder: Any) -> Any:
    """Drop the encoder that nnU-Net's decoders contain; the branches use the student's."""
    decoder.encoder = None
    return decoder


def require_planned_unet(network: nn.Module) -> None:
    """Check that a network has the modules of nnU-Net's U-Nets.

    Raises:
        UserError: a module is missing.
    """
    decoder = getattr(network, "decoder", None)
    modules = [
        getattr(getattr(network, "encoder", None), "stages", None),
        *(getattr(decoder, name, None) for name in ("transpconvs", "stages", "seg_layers")),
    ]
    if any(module is None for module in modules):
        raise UserError(
            f"SemiDiffusionTrainer shares the encoder of one of nnU-Net's U-Nets (PlainConvUNet, "
            f"ResidualEncoderUNet), got {type(network).__name__}",
            fix="plan one of these, or choose another trainer",
        )
