"""Strides and kernels that nnU-Net plans for a patch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from semi_nnunet.planning.topology import (
    FEWEST_STAGES,
    SMALLEST_MAP,
    name_patch_plans,
    name_spacing_plans,
    plan_for_spacing,
    plan_topology,
    replace_patch,
    replace_topology,
    take_first,
)
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json


def test_additional_stages_have_nnunets_features() -> None:
    arch = {"n_conv_per_stage": [2] * 3, "n_conv_per_stage_decoder": [2] * 2}
    arch["features_per_stage"] = [32, 64, 128]
    plan = {"spacing": [1.0] * 3, "patch_size": [16] * 3, "architecture": {"arch_kwargs": arch}}
    new_arch = replace_patch("3d", plan, [128] * 3)["architecture"]["arch_kwargs"]
    assert new_arch["features_per_stage"] == [32, 64, 128, 256, 320, 320]
    assert new_arch["n_conv_per_stage"] == [2] * 6
    assert new_arch["n_conv_per_stage_decoder"] == [2] * 5


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_the_topology_is_that_of_nnunets_planner(configuration: str, phantom: Any) -> None:
    plan = phantom.plans["configurations"][configuration]
    arch = plan["architecture"]["arch_kwargs"]
    topology = plan_topology(plan["spacing"], plan["patch_size"])
    assert (topology.strides, topology.kernels) == (arch["strides"], arch["kernel_sizes"])
    assert topology.patch == plan["patch_size"]
    assert replace_topology(plan, topology, arch["features_per_stage"]) == plan


@pytest.mark.parametrize(
    ("spacing", "patch"),
    [((1.0, 1.0), (37, 91)), ((5.0, 1.0, 1.0), (9, 100, 61)), ((1, 1, 1), (4, 4, 4))],
)
def test_the_patch_is_padded_to_multiples_of_the_strides(
    spacing: tuple[float, ...], patch: tuple[int, ...]
) -> None:
    topology = plan_topology(spacing, patch)
    assert topology.divisors == [math.prod(axis) for axis in zip(*topology.strides, strict=True)]
    for edge, padded, divisor in zip(patch, topology.patch, topology.divisors, strict=True):
        assert padded % divisor == 0 and edge <= padded < edge + divisor
        assert padded // divisor >= SMALLEST_MAP
    assert plan_topology(spacing, topology.patch) == topology


def test_an_invalid_patch_is_refused_with_the_nearest_valid_one(phantom: Any) -> None:
    plan = phantom.plans["configurations"]["2d"]
    with pytest.raises(UserError, match=r"multiple of \[\d+, \d+\]") as caught:
        replace_patch("2d", plan, [37, 91])
    nearest = [int(edge) for edge in caught.value.fix.removeprefix("--patch ").split()]
    assert replace_patch("2d", plan, nearest)["patch_size"] == nearest
    with pytest.raises(UserError, match=f"at least {FEWEST_STAGES} resolutions, got 2"):
        replace_patch("2d", plan, [8, 8])
    with pytest.raises(UserError, match="positive"):
        replace_patch("2d", plan, [8, -8])


def test_the_original_plan_is_unchanged(phantom: Any) -> None:
    plan = phantom.plans["configurations"]["2d"]
    smaller = replace_patch("2d", plan, [16, 16])
    assert smaller["architecture"]["arch_kwargs"]["n_stages"] == 3
    assert plan == phantom.plans["configurations"]["2d"] != smaller


def test_the_last_value_is_repeated_if_there_are_too_few() -> None:
    assert take_first([1, 3, 4], 2) == [1, 3] and take_first([1, 3], 4) == [1, 3, 3, 3]


def test_the_name_of_plans_contains_the_patch() -> None:
    assert (
        name_patch_plans("P", [80, 112, 112]) == "P_80x112x112"
        and name_patch_plans("P", None) == "P"
    )


def test_the_patch_follows_a_given_spacing(phantom: Any) -> None:
    plans = read_json(phantom.preprocessed / "nnUNetPlans.json")
    original = plans["configurations"]["3d_fullres"]
    unchanged = plan_for_spacing("3d_fullres", original, original["spacing"])
    assert unchanged["patch_size"] == original["patch_size"]
    spacing = [1.25 * edge for edge in original["spacing"]]
    plan = plan_for_spacing("3d_fullres", original, spacing)
    assert plan["spacing"] == spacing
    median = plan["median_image_size_in_voxels"]
    assert median == [np.ceil(n / 1.25) for n in original["median_image_size_in_voxels"]]
    topology = plan_topology(spacing, plan["patch_size"])
    assert plan["architecture"]["arch_kwargs"]["strides"] == topology.strides
    assert all(
        edge % divisor == 0
        for edge, divisor in zip(plan["patch_size"], topology.divisors, strict=True)
    )


@pytest.mark.parametrize(
    ("spacing", "key_word"), [([0.0, 1.0, 1.0], "positive"), ([90.0] * 3, "3 resolutions")]
)
def test_an_invalid_spacing_is_refused(spacing: list[float], key_word: str, phantom: Any) -> None:
    plans = read_json(phantom.preprocessed / "nnUNetPlans.json")
    with pytest.raises(UserError, match=key_word):
        plan_for_spacing("3d_fullres", plans["configurations"]["3d_fullres"], spacing)


def test_the_name_of_plans_contains_the_spacing() -> None:
    assert name_spacing_plans("nnUNetPlans", [3.0, 0.8, 0.8]) == "nnUNetPlans_3x0p8x0p8mm"
    assert name_spacing_plans("nnUNetPlans", None) == "nnUNetPlans"
