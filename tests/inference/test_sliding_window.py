"""Slabs of logits are those that nnU-Net's sliding window gives for the whole image."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from torch import nn

from semi_nnunet.inference.sliding_window import Window, slabs

CPU = torch.device("cpu")
SHAPES = [
    ((9, 11, 7), (4, 6, 5)),
    ((3, 20, 7), (4, 6, 5)),
    ((5, 9, 12), (6, 8)),
    ((1, 5, 12), (6, 8)),
]


def a_network(dimensions: int) -> nn.Module:
    """Some network that sees its neighbourhood and tells left from right."""
    torch.manual_seed(0)
    convolution = nn.Conv3d if dimensions == 3 else nn.Conv2d
    return nn.Sequential(
        convolution(2, 4, 3, padding=1), nn.ReLU(), convolution(4, 3, 3, padding=1)
    )


def of_nnunet(network, weights, data, window: Window) -> torch.Tensor:
    predictor = nnUNetPredictor(
        tile_step_size=window.step, use_mirroring=bool(window.mirror_axes), device=CPU,
        allow_tqdm=False,
    )  # fmt: skip
    configuration = SimpleNamespace(patch_size=window.patch_size)
    plans = SimpleNamespace(get_label_manager=lambda _: SimpleNamespace(num_segmentation_heads=3))
    predictor.manual_initialization(
        network, plans, configuration, weights, {}, "any", window.mirror_axes
    )
    return predictor.predict_logits_from_preprocessed_data(data)


@pytest.mark.parametrize(("shape", "patch"), SHAPES)
@pytest.mark.parametrize("mirror", [(), (0, 1)])
@pytest.mark.parametrize("folds", [1, 3])
@pytest.mark.parametrize("step", [0.5, 0.8])
def test_logits_are_nnunets_to_the_last_bit(shape, patch, mirror, folds, step):
    network, window = a_network(len(patch)), Window(patch, step, mirror)
    weights = [a_network(len(patch)).state_dict() for _ in range(folds)]
    for number, state in enumerate(weights):
        state.update({name: value + 0.1 * number for name, value in state.items()})
    data = torch.randn(2, *shape)
    found = list(slabs(network, weights, data, 3, window, CPU))
    assert [slab.start for slab in found] == [
        sum(one.logits.shape[1] for one in found[:number]) for number in range(len(found))
    ]
    assert torch.equal(
        torch.cat([slab.logits for slab in found], 1), of_nnunet(network, weights, data, window)
    )


def test_tiles_at_once_change_nothing_but_rounding():
    network, data = a_network(3), torch.randn(2, 9, 11, 7)
    one, three = (
        torch.cat([slab.logits for slab in slabs(network, [network.state_dict()], data, 3,
                   Window((4, 6, 5), tiles_at_once=count), CPU)], 1)
        for count in (1, 3)
    )  # fmt: skip
    assert torch.allclose(one, three, atol=2e-3)


def test_tiles_that_nobody_wants_are_not_predicted():
    network, data, seen = a_network(3), torch.randn(2, 12, 12, 12), []
    network.register_forward_hook(lambda *_: seen.append(1))
    window, weights = Window((4, 4, 4), 1.0), [network.state_dict()]
    whole = torch.cat([slab.logits for slab in slabs(network, weights, data, 3, window, CPU)], 1)
    seen.clear()
    some = slabs(network, weights, data, 3, window, CPU, lambda region: region[2].start == 4)
    part = torch.cat([slab.logits for slab in some], 1)
    assert len(seen) == 9
    assert torch.equal(part[..., 4:8], whole[..., 4:8])
    assert not part[..., :4].any() and not part[..., 8:].any()


def test_an_output_that_is_no_number_is_an_error():
    network = a_network(3)
    next(network.parameters()).data.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="not a number"):
        list(
            slabs(
                network, [network.state_dict()], torch.ones(2, 4, 4, 4), 3, Window((4, 4, 4)), CPU
            )
        )
