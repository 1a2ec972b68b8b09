"""Small networks: what they cost is counted and measured; the largest one allowed is taken."""

from __future__ import annotations

import math

import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from torch.utils.flop_counter import FlopCounterMode

from semi_nnunet.planning.slim import (
    Slim,
    count_tiles,
    largest_within,
    seconds_of_image,
    slim_networks,
)
from semi_nnunet.planning.topology import build_planned_network
from semi_nnunet.util.errors import UserError


@pytest.fixture
def configuration(prepared_dataset):
    plan = prepared_dataset().plans["configurations"]["3d_fullres"]
    plan["architecture"]["arch_kwargs"]["features_per_stage"] = [16, 32, 64]
    return plan


def test_networks_get_smaller_and_keep_patch_and_strides(configuration) -> None:
    found = slim_networks(configuration, 1, 4)
    arch = configuration["architecture"]["arch_kwargs"]
    assert found[0].features == arch["features_per_stage"]
    operations = [one.operations for one in found]
    assert operations == sorted(operations, reverse=True)
    assert operations[-1] < operations[0] / 8 and len({*operations}) == len(found)
    for one in found:
        own = one.configuration["architecture"]["arch_kwargs"]
        assert one.configuration["patch_size"] == configuration["patch_size"]
        assert own["strides"] == arch["strides"][: own["n_stages"]]
        assert min(own["features_per_stage"]) >= 4


def test_operations_and_parameters_are_those_of_the_network_that_predicts(configuration) -> None:
    for slim in slim_networks(configuration, 2, 3)[::4]:
        network = build_planned_network(slim.configuration, 2, 3).eval()
        assert slim.parameters == sum(p.numel() for p in network.parameters())
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            output = network(torch.zeros(1, 2, *configuration["patch_size"]))
        assert slim.operations == counter.get_total_flops()
        assert output.shape == (1, 3, *configuration["patch_size"])


@pytest.mark.parametrize("image", [[30.0, 70.0, 50.0], [4.0, 24.0, 100.0]])
def test_tiles_are_nnunets(image, configuration) -> None:
    configuration["median_image_size_in_voxels"] = image
    patch = configuration["patch_size"]
    predictor = nnUNetPredictor(tile_step_size=0.5, device=torch.device("cpu"))
    predictor.configuration_manager = type("Manager", (), {"patch_size": patch})
    padded = [max(int(edge), tile) for edge, tile in zip(image, patch, strict=True)]
    expected = predictor._internal_get_sliding_window_slicers(tuple(padded))
    assert count_tiles(configuration, slices=1) == len(expected)


def test_a_2d_network_sees_every_slice(prepared_dataset) -> None:
    plan = prepared_dataset().plans["configurations"]["2d"]
    assert count_tiles(plan, slices=30) == 30 * count_tiles(plan, slices=1)
    slim = slim_networks(plan, 1, 4)[-1]
    assert 0 < seconds_of_image(slim, 1, 4, torch.device("cpu"), slices=2) < 60


def made(*operations: int) -> list[Slim]:
    return [Slim({}, one, 1) for one in operations]


def test_the_largest_network_that_keeps_to_the_goals_is_taken() -> None:
    networks, asked = made(*range(64, 0, -1)), list[float]()

    def takes(slim: Slim) -> float:
        asked.append(slim.operations)
        return slim.operations / 10

    assert largest_within(networks, 1.0, None, takes).operations == 64 and not asked
    assert largest_within(networks, 1 / 8, None, takes).operations == 8
    assert largest_within(networks, 1.0, 2.05, takes).operations == 20
    assert len(asked) <= math.log2(64) + 2  # each is a measurement
    assert largest_within(networks, 1 / 8, 2.05, takes).operations == 8
    assert largest_within(networks, 1.0, 0.1, takes).operations == 1


@pytest.mark.parametrize(
    ("share", "seconds", "says"),
    [(0.001, None, "--share must be at least 0.2"), (1.0, 0.01, "--seconds must be at least 2")],
)
def test_a_goal_that_nothing_keeps_to_names_what_would(share, seconds, says) -> None:
    with pytest.raises(UserError, match=f"{says}.*Fix: raise it"):
        largest_within(made(10, 2), share, seconds, lambda slim: slim.operations)
