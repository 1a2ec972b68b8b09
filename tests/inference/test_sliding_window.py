"""Slabs of logits equal those of nnU-Net's sliding window."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from torch import nn

from semi_nnunet.inference.sliding_window import Window, predict_slabs

CPU = torch.device("cpu")
SHAPES = [
    ((9, 11, 7), (4, 6, 5)),
    ((3, 20, 7), (4, 6, 5)),
    ((5, 9, 12), (6, 8)),
    ((1, 5, 12), (6, 8)),
]


def make_network(dimensions: int) -> nn.Module:
    """Some network that sees its neighbourhood and tells left from right."""
    torch.manual_seed(0)
    convolution = nn.Conv3d if dimensions == 3 else nn.Conv2d
    return nn.Sequential(
        convolution(2, 4, 3, padding=1), nn.ReLU(), convolution(4, 3, 3, padding=1)
    )


def predict_with_nnunet(network, weights, data, window: Window) -> torch.Tensor:
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
def test_logits_equal_nnunets_to_the_last_bit(shape, patch, mirror, folds, step):
    network, window = make_network(len(patch)), Window(patch, step, mirror)
    weights = [make_network(len(patch)).state_dict() for _ in range(folds)]
    for number, state in enumerate(weights):
        state.update({name: value + 0.1 * number for name, value in state.items()})
    data = torch.randn(2, *shape)
    logit_slabs = list(predict_slabs(network, weights, data, 3, window, CPU))
    assert [slab.start for slab in logit_slabs] == [
        sum(slab.logits.shape[1] for slab in logit_slabs[:number])
        for number in range(len(logit_slabs))
    ]
    assert torch.equal(
        torch.cat([slab.logits for slab in logit_slabs], 1),
        predict_with_nnunet(network, weights, data, window),
    )


def test_batches_of_tiles_change_only_rounding():
    network, data = make_network(3), torch.randn(2, 9, 11, 7)
    single, batched = (
        torch.cat([slab.logits for slab in predict_slabs(network, [network.state_dict()], data, 3,
                   Window((4, 6, 5), tiles_at_once=count), CPU)], 1)
        for count in (1, 3)
    )  # fmt: skip
    assert torch.allclose(single, batched, atol=2e-3)


def test_unwanted_tiles_are_not_predicted():
    network, data, seen = make_network(3), torch.randn(2, 12, 12, 12), []
    network.register_forward_hook(lambda *_: seen.append(1))
    window, weights = Window((4, 4, 4), 1.0), [network.state_dict()]
    whole = torch.cat(
        [slab.logits for slab in predict_slabs(network, weights, data, 3, window, CPU)], 1
    )
    seen.clear()
    slabs = predict_slabs(
        network, weights, data, 3, window, CPU, lambda region: region[2].start == 4
    )
    wanted_logits = torch.cat([slab.logits for slab in slabs], 1)
    assert len(seen) == 9
    assert torch.equal(wanted_logits[..., 4:8], whole[..., 4:8])
    assert not wanted_logits[..., :4].any() and not wanted_logits[..., 8:].any()


def test_a_nan_output_is_an_error():
    network = make_network(3)
    next(network.parameters()).data.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="not a number"):
        list(
            predict_slabs(
                network, [network.state_dict()], torch.ones(2, 4, 4, 4), 3, Window((4, 4, 4)), CPU
            )
        )
