"""Networks of other libraries as nnU-Net builds and calls its own.

nnU-Net's plans name a class and its arguments; it is called with ``input_channels``,
``num_classes`` and ``deep_supervision`` beside these. None of these networks has deep supervision,
and ``strides`` only tell nnU-Net and us how often the image is halved. Planned by
:mod:`semi_nnunet.planning.architecture`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from semi_nnunet.util.errors import UserError

EXTRA = "Fix: pip install 'semi_nnunet[architectures]'"
DEPTH = 5  # halvings of the encoders of segmentation-models-pytorch


class SmpNetwork(nn.Module):
    """A 2-D network of segmentation-models-pytorch.

    Args:
        input_channels: of the image.
        num_classes: of the logits.
        architecture: class, such as "Unet".
        encoder: name, such as "resnet50" or, of timm, "tu-hrnet_w18".
        strides: of the stages; for nnU-Net.
        weights: of the encoder, which :meth:`load_pretrained` loads: "imagenet", a file, or None.
        deep_supervision: has no effect.
        options: further arguments of the class.

    Raises:
        UserError: the library is not installed.
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        architecture: str,
        encoder: str,
        strides: Sequence[Any] = (),
        weights: str | None = None,
        deep_supervision: bool = False,
        **options: Any,
    ):
        super().__init__()
        self.encoder_name, self.weights = encoder, weights
        self.input_channels = input_channels
        self.model = getattr(_smp(), architecture)(
            encoder,
            encoder_weights=None,
            in_channels=input_channels,
            classes=num_classes,
            **options,
        )

    @property
    def encoder(self) -> nn.Module:
        """Returns the skip features, bottleneck last."""
        return self.model.encoder

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)

    def load_pretrained(self) -> None:
        """Load the encoder's weights, before a training begins.

        Raises:
            UserError: they are not there, or of another encoder.
        """
        if self.weights is None:
            return
        state = imagenet(self) if self.weights == "imagenet" else _read(Path(self.weights))
        try:
            self.encoder.load_state_dict(state)
        except RuntimeError as error:
            raise UserError(
                f"{self.weights} does not hold the weights of {self.encoder_name} with "
                f"{self.input_channels} input channels: {str(error)[:500]}",
                fix="save "
                "network.encoder.state_dict() of segmentation-models-pytorch, or plan without "
                "--weights",
            ) from error


def imagenet(network: SmpNetwork) -> dict[str, torch.Tensor]:
    """The encoder's ImageNet weights, which its library fetches; channels as it adapts them.

    Raises:
        UserError: there are none, or they cannot be fetched.
    """
    name = network.encoder_name
    try:
        made = _smp().encoders.get_encoder(
            name, in_channels=network.input_channels, depth=DEPTH, weights="imagenet"
        )
    except Exception as error:  # of the network, the hub, the library
        raise UserError(
            f"the ImageNet weights of {name} cannot be had: {str(error)[:300]}",
            fix=f"on a machine "
            f"with internet, torch.save(segmentation_models_pytorch.encoders.get_encoder({name!r}, "
            f"in_channels={network.input_channels}, weights='imagenet').state_dict(), 'FILE'), and "
            f"plan with --weights FILE; or plan with --weights none",
        ) from error
    return made.state_dict()


def _read(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise UserError(f"--weights {path} does not exist", fix="correct the path")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch names many
        raise UserError(
            f"--weights {path} cannot be read ({type(error).__name__})",
            fix="save an encoder's state_dict() by torch.save",
        ) from error


def _smp() -> Any:
    try:
        import segmentation_models_pytorch
    except ImportError as error:
        raise UserError(f"this plan needs segmentation-models-pytorch. {EXTRA}") from error
    return segmentation_models_pytorch


class MonaiNetwork(nn.Module):
    """A network of MONAI.

    Args:
        input_channels: of the image.
        num_classes: of the logits.
        architecture: class, such as "SegResNet".
        options: its further arguments.
        strides: of the stages; for nnU-Net.
        deep_supervision: has no effect.

    Raises:
        UserError: MONAI is not installed.
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        architecture: str,
        options: dict[str, Any],
        strides: Sequence[Any] = (),
        deep_supervision: bool = False,
    ):
        super().__init__()
        try:
            from monai.networks import nets
        except ImportError as error:
            raise UserError(f"this plan needs MONAI. {EXTRA}") from error
        self.model = getattr(nets, architecture)(
            in_channels=input_channels, out_channels=num_classes, **options
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)


class PrimusNetwork(nn.Module):
    """Primus (Wald et al. 2025, arXiv:2503.01835) of dynamic-network-architectures: 3-D, no U-Net.

    Args:
        input_channels: of the image.
        num_classes: of the logits.
        size: "S", "B", "M" or "L".
        patch_size: of the image; the network is for this one.
        patch_embed_size: voxels of a token along each axis.
        strides: of the stages; for nnU-Net.
        deep_supervision: has no effect.
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        size: str,
        patch_size: Sequence[int],
        patch_embed_size: Sequence[int],
        strides: Sequence[Any] = (),
        deep_supervision: bool = False,
    ):
        super().__init__()
        from dynamic_network_architectures.architectures.primus import PrimusX

        self.model = PrimusX(
            input_channels, num_classes, size, tuple(patch_embed_size), tuple(patch_size)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)
