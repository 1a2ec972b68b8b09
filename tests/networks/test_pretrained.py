"""Initial weights of a network from a checkpoint."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn

from semi_nnunet.networks.pretrained import (
    ADAPTATION_KEY,
    adapt_input_channels,
    build_adaptation_plan,
    find_output_layers,
    load_fitting_weights,
)
from semi_nnunet.util.errors import UserError


def unet(channels: int = 1, classes: int = 3, kind: Any = PlainConvUNet, stages: int = 3) -> Any:
    return kind(
        input_channels=channels, n_stages=stages, features_per_stage=[4, 8, 8][:stages],
        conv_op=nn.Conv3d, kernel_sizes=3, strides=[1, 2, 2][:stages],
        **{"n_conv_per_stage" if kind is PlainConvUNet else "n_blocks_per_stage": 1},
        num_classes=classes, n_conv_per_stage_decoder=1, conv_bias=True,
        norm_op=nn.InstanceNorm3d, norm_op_kwargs={"affine": True}, nonlin=nn.LeakyReLU,
    )  # fmt: skip


def heads_of(kind: Any = PlainConvUNet) -> set[str]:
    return find_output_layers(lambda classes: unet(classes=classes, kind=kind))


def test_output_layers_are_those_that_depend_on_the_classes():
    assert heads_of() == {
        f"decoder.seg_layers.{level}.{kind}" for level in (0, 1) for kind in ("weight", "bias")
    }


@pytest.mark.parametrize("kind", [PlainConvUNet, ResidualEncoderUNet])
def test_all_weights_but_the_output_layers_are_loaded(kind):
    network, other = unet(kind=kind), unet(kind=kind)
    original = copy.deepcopy(network.state_dict())
    transfer = load_fitting_weights(
        network, {"network_weights": other.state_dict()}, heads_of(kind)
    )
    assert not transfer.mismatched and set(transfer.outputs) == heads_of(kind)
    for name, value in network.state_dict().items():
        source = original if name in transfer.outputs else other.state_dict()
        assert torch.equal(value, source[name])


@pytest.mark.parametrize("kind", [PlainConvUNet, ResidualEncoderUNet])
def test_equal_channels_give_the_output_of_one_channel(kind):
    gray, rgb = unet(1, kind=kind).eval(), unet(3, kind=kind).eval()
    transfer = load_fitting_weights(rgb, {"network_weights": gray.state_dict()}, set())
    assert not {name for name in transfer.mismatched if "seg_layers" in name}
    x = torch.randn(1, 1, 8, 8, 8)
    torch.testing.assert_close(rgb(x.expand(-1, 3, -1, -1, -1)), gray(x), atol=1e-5, rtol=1e-4)
    back = adapt_input_channels(rgb.encoder.stages[0][0].convs[0].conv.weight, 1) if (
        kind is PlainConvUNet
    ) else adapt_input_channels(rgb.encoder.stem.convs[0].conv.weight, 1)  # fmt: skip
    first = gray.encoder.stages[0][0] if kind is PlainConvUNet else gray.encoder.stem
    torch.testing.assert_close(back, first.convs[0].conv.weight)


def test_an_encoder_with_another_name_is_found():
    """As in nnssl's self-distilling networks."""
    network, other = unet(kind=ResidualEncoderUNet), unet(kind=ResidualEncoderUNet)
    weights = {
        f"online_{name}": value
        for name, value in other.state_dict().items()
        if name.startswith("encoder.")
    }
    plan = {"key_to_encoder": "online_encoder.stages", "key_to_stem": "online_encoder.stem"}
    content = {"network_weights": weights, ADAPTATION_KEY: plan}
    transfer = load_fitting_weights(network, content, heads_of(ResidualEncoderUNet))
    for name, value in network.encoder.state_dict().items():
        assert torch.equal(value, other.encoder.state_dict()[name])
    assert any("transpconvs" in name for name in transfer.mismatched)


def test_weights_of_other_shapes_stay_random_and_another_architecture_is_refused():
    network, smaller = unet(), unet(stages=2)
    transfer = load_fitting_weights(network, {"network_weights": smaller.state_dict()}, heads_of())
    assert any(name.startswith("encoder.stages.2") for name in transfer.mismatched)
    assert any(name.startswith("encoder.stages.1") for name in transfer.loaded)
    assert "stay random" in str(transfer)
    with pytest.raises(UserError, match="same architecture"):
        load_fitting_weights(
            network, {"network_weights": {"other.weight": torch.zeros(1)}}, heads_of()
        )


def test_values_that_are_no_weights_are_not_taken():
    network, weights = unet(), unet(channels=3).state_dict()
    first = next(name for name, value in weights.items() if value.ndim == 5)
    for broken in (weights[first].int(), weights[first][:, :0]):
        transfer = load_fitting_weights(
            network, {"network_weights": weights | {first: broken}}, heads_of()
        )
        assert first in transfer.mismatched and first not in transfer.loaded
        assert all(value.isfinite().all() for value in network.state_dict().values())
    with pytest.raises(UserError, match="not finite"):
        nan = {name: value * math.nan for name, value in weights.items()}
        load_fitting_weights(network, {"network_weights": nan}, heads_of())


def test_a_network_that_does_not_name_its_encoder_has_no_adaptation_plan():
    assert build_adaptation_plan(nn.Linear(1, 1), {}, {}, "2d", 1) is None
