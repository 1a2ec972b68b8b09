"""Small networks, their cost, and the largest one within limits."""

from __future__ import annotations

import math

import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from torch.utils.flop_counter import FlopCounterMode

from semi_nnunet.planning.slim import (
    SlimNetwork,
    count_tiles,
    find_largest_within,
    list_slim_networks,
    measure_image_seconds,
)
from semi_nnunet.planning.topology import build_planned_network
from semi_nnunet.util.errors import UserError


@pytest.fixture
def configuration(prepared_dataset):
    plan = prepared_dataset().plans["configurations"]["3d_fullres"]
    plan["architecture"]["arch_kwargs"]["features_per_stage"] = [16, 32, 64]
    return plan


def test_networks_get_smaller_and_keep_patch_and_strides(configuration) -> None:
    networks = list_slim_networks(configuration, 1, 4)
    arch = configuration["architecture"]["arch_kwargs"]
    assert networks[0].features == arch["features_per_stage"]
    operations = [slim.operations for slim in networks]
    assert operations == sorted(operations, reverse=True)
    assert operations[-1] < operations[0] / 8 and len({*operations}) == len(networks)
    for slim in networks:
        slim_arch = slim.configuration["architecture"]["arch_kwargs"]
        assert slim.configuration["patch_size"] == configuration["patch_size"]
        assert slim_arch["strides"] == arch["strides"][: slim_arch["n_stages"]]
        assert min(slim_arch["features_per_stage"]) >= 4


def test_operations_and_parameters_are_those_of_the_built_network(configuration) -> None:
    for slim in list_slim_networks(configuration, 2, 3)[::4]:
        network = build_planned_network(slim.configuration, 2, 3).eval()
        assert slim.parameters == sum(p.numel() for p in network.parameters())
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            output = network(torch.zeros(1, 2, *configuration["patch_size"]))
        assert slim.operations == counter.get_total_flops()
        assert output.shape == (1, 3, *configuration["patch_size"])


@pytest.mark.parametrize("image", [[30.0, 70.0, 50.0], [4.0, 24.0, 100.0]])
def test_tiles_are_those_of_nnunet(image, configuration) -> None:
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
    slim = list_slim_networks(plan, 1, 4)[-1]
    assert 0 < measure_image_seconds(slim, 1, 4, torch.device("cpu"), slices=2) < 60


def make_networks(*operations: int) -> list[SlimNetwork]:
    return [SlimNetwork({}, count, 1) for count in operations]


def test_the_largest_network_within_the_limits_is_used() -> None:
    networks, measured = make_networks(*range(64, 0, -1)), list[float]()

    def takes(slim: SlimNetwork) -> float:
        measured.append(slim.operations)
        return slim.operations / 10

    assert find_largest_within(networks, 1.0, None, takes).operations == 64 and not measured
    assert find_largest_within(networks, 1 / 8, None, takes).operations == 8
    assert find_largest_within(networks, 1.0, 2.05, takes).operations == 20
    assert len(measured) <= math.log2(64) + 2
    assert find_largest_within(networks, 1 / 8, 2.05, takes).operations == 8
    assert find_largest_within(networks, 1.0, 0.1, takes).operations == 1


@pytest.mark.parametrize(
    ("share", "seconds", "limit"), [(0.001, None, "--share .* 0.2"), (1.0, 0.01, "--seconds .* 2")]
)
def test_an_impossible_limit_is_answered_by_the_smallest_possible(share, seconds, limit) -> None:
    with pytest.raises(UserError, match=limit):
        find_largest_within(make_networks(10, 2), share, seconds, lambda slim: slim.operations)
