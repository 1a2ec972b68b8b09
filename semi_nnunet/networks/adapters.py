"""Networks of other libraries, in the form in which nnU-Net builds and calls its own.

nnU-Net's plans name a class and its arguments, to which nnU-Net adds ``input_channels``,
``num_classes`` and ``deep_supervision``. None of these networks has deep supervision; ``strides``
only describe how often the image is halved. Planned by :mod:`semi_nnunet.planning.architecture`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from semi_nnunet.util.errors import UserError

INSTALL_EXTRA = "pip install 'semi_nnunet[architectures]'"
ENCODER_DEPTH = 5  # halvings of the encoders of segmentation-models-pytorch


class SmpNetwork(nn.Module):
    """A 2-D network of segmentation-models-pytorch.

    Args:
        input_channels: channels of the image.
        num_classes: channels of the logits.
        architecture: class, such as "Unet".
        encoder: name, such as "resnet50" or, of timm, "tu-hrnet_w18".
        strides: of the stages, for nnU-Net.
        weights: of the encoder, loaded by :meth:`load_pretrained`: "imagenet", a file, or None.
        deep_supervision: ignored.
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
        """The encoder, which returns the skip features, bottleneck last."""
        return self.model.encoder

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)

    def load_pretrained(self) -> None:
        """Load the encoder's weights before a training starts.

        Raises:
            UserError: the weights are missing, or those of another encoder.
        """
        if self.weights is None:
            return
        if self.weights == "imagenet":
            state = fetch_imagenet_weights(self)
        else:
            state = _read_encoder_weights(Path(self.weights))
        try:
            self.encoder.load_state_dict(state)
        except RuntimeError as error:
            raise UserError(
                f"{self.weights} does not hold the weights of {self.encoder_name} with "
                f"{self.input_channels} input channels: {str(error)[:500]}",
                fix="save network.encoder.state_dict() of segmentation-models-pytorch, or plan "
                "without --encoder-weights",
            ) from error


def fetch_imagenet_weights(network: SmpNetwork) -> dict[str, torch.Tensor]:
    """Return the encoder's ImageNet weights, fetched and adapted to the channels by its library.

    Raises:
        UserError: the weights do not exist, or cannot be fetched.
    """
    name = network.encoder_name
    try:
        encoder = _smp().encoders.get_encoder(
            name, in_channels=network.input_channels, depth=ENCODER_DEPTH, weights="imagenet"
        )
    except Exception as error:  # of the network, the hub, the library
        raise UserError(
            f"the ImageNet weights of {name} cannot be fetched: {str(error)[:300]}",
            fix=f"on a machine with internet, torch.save(segmentation_models_pytorch.encoders."
            f"get_encoder({name!r}, in_channels={network.input_channels}, weights='imagenet')"
            f".state_dict(), 'FILE'), and plan with --encoder-weights FILE; or plan with "
            f"--encoder-weights none",
        ) from error
    return encoder.state_dict()


def _read_encoder_weights(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise UserError(f"--encoder-weights {path} does not exist", fix="correct the path")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise TypeError(f"it holds a {type(state).__name__}")
        return state
    except Exception as error:  # torch raises many kinds
        raise UserError(
            f"--encoder-weights {path} cannot be read ({type(error).__name__})",
            fix="save the state_dict() of an encoder with torch.save",
        ) from error


def _smp() -> Any:
    try:
        import segmentation_models_pytorch
    except ImportError as error:
        raise UserError("this plan needs segmentation-models-pytorch", fix=INSTALL_EXTRA) from error
    return segmentation_models_pytorch


class MonaiNetwork(nn.Module):
    """A network of MONAI.

    Args:
        input_channels: channels of the image.
        num_classes: channels of the logits.
        architecture: class, such as "SegResNet".
        options: its further arguments.
        strides: of the stages, for nnU-Net.
        deep_supervision: ignored.

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
            raise UserError("this plan needs MONAI", fix=INSTALL_EXTRA) from error
        self.model = getattr(nets, architecture)(
            in_channels=input_channels, out_channels=num_classes, **options
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)


class PrimusNetwork(nn.Module):
    """Primus (Wald et al. 2025, arXiv:2503.01835) of dynamic-network-architectures, for 3-D.

    A transformer, not a U-Net.

    Args:
        input_channels: channels of the image.
        num_classes: channels of the logits.
        size: "S", "B", "M" or "L".
        patch_size: of the image; the network only accepts this size.
        patch_embed_size: voxels of a token along each axis.
        strides: of the stages, for nnU-Net.
        deep_supervision: ignored.
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
        self.key_to_encoder, self.key_to_stem = "model.eva", "model.down_projection"
        self.keys_to_in_proj = ("model.down_projection.proj",)
        self.key_to_lpe = "model.eva.pos_embed"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)
