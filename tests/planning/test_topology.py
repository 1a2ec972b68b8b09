"""A patch gets the strides and kernels that nnU-Net plans for it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from semi_nnunet.planning.topology import (
    FEWEST_STAGES,
    SMALLEST_MAP,
    plan_for_spacing,
    plan_topology,
    plans_of_patch,
    plans_of_spacing,
    replace_patch,
    replace_topology,
    take_first,
)
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json


def test_a_patch_of_more_stages_than_before_gets_as_many_features_as_nnunet_gives() -> None:
    arch = {"n_conv_per_stage": [2] * 3, "n_conv_per_stage_decoder": [2] * 2}
    arch["features_per_stage"] = [32, 64, 128]
    plan = {"spacing": [1.0] * 3, "patch_size": [16] * 3, "architecture": {"arch_kwargs": arch}}
    made = replace_patch("3d", plan, [128] * 3)["architecture"]["arch_kwargs"]
    assert made["features_per_stage"] == [32, 64, 128, 256, 320, 320]
    assert made["n_conv_per_stage"] == [2] * 6 and made["n_conv_per_stage_decoder"] == [2] * 5


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_it_is_the_network_that_nnunets_planner_made(configuration: str, phantom: Any) -> None:
    plan = phantom.plans["configurations"][configuration]
    arch = plan["architecture"]["arch_kwargs"]
    found = plan_topology(plan["spacing"], plan["patch_size"])
    assert (found.strides, found.kernels) == (arch["strides"], arch["kernel_sizes"])
    assert found.patch == plan["patch_size"]
    assert replace_topology(plan, found, arch["features_per_stage"]) == plan


@pytest.mark.parametrize(
    ("spacing", "patch"),
    [((1.0, 1.0), (37, 91)), ((5.0, 1.0, 1.0), (9, 100, 61)), ((1, 1, 1), (4, 4, 4))],
)
def test_the_patch_is_padded_to_what_the_strides_divide(
    spacing: tuple[float, ...], patch: tuple[int, ...]
) -> None:
    found = plan_topology(spacing, patch)
    assert found.divisors == [math.prod(axis) for axis in zip(*found.strides, strict=True)]
    for edge, padded, divisor in zip(patch, found.patch, found.divisors, strict=True):
        assert padded % divisor == 0 and edge <= padded < edge + divisor
        assert padded // divisor >= SMALLEST_MAP
    assert plan_topology(spacing, found.patch) == found


def test_a_patch_that_cannot_be_is_refused_with_one_that_can(phantom: Any) -> None:
    plan = phantom.plans["configurations"]["2d"]
    with pytest.raises(
        UserError, match=r"must be a multiple of \[\d+, \d+\].* Fix: --patch"
    ) as caught:
        replace_patch("2d", plan, [37, 91])
    nearest = [int(edge) for edge in str(caught.value).split("--patch ")[-1].split()]
    assert replace_patch("2d", plan, nearest)["patch_size"] == nearest
    with pytest.raises(UserError, match=f"at least {FEWEST_STAGES} resolutions, got 2 with"):
        replace_patch("2d", plan, [8, 8])
    with pytest.raises(UserError, match=r"must be positive, got \[8, -8\]"):
        replace_patch("2d", plan, [8, -8])


def test_the_plan_that_it_starts_from_stays_as_it_is(phantom: Any) -> None:
    plan = phantom.plans["configurations"]["2d"]
    made = replace_patch("2d", plan, [16, 16])
    assert made["architecture"]["arch_kwargs"]["n_stages"] == 3
    assert plan == phantom.plans["configurations"]["2d"] != made


def test_the_last_value_is_repeated_where_there_are_too_few() -> None:
    assert take_first([1, 3, 4], 2) == [1, 3] and take_first([1, 3], 4) == [1, 3, 3, 3]


def test_the_name_of_plans_tells_the_patch() -> None:
    assert (
        plans_of_patch("P", [80, 112, 112]) == "P_80x112x112" and plans_of_patch("P", None) == "P"
    )


def test_the_patch_follows_a_given_spacing(phantom: Any) -> None:
    plans = read_json(phantom.preprocessed / "nnUNetPlans.json")
    before = plans["configurations"]["3d_fullres"]
    same = plan_for_spacing("3d_fullres", before, before["spacing"])
    assert same["patch_size"] == before["patch_size"]
    spacing = [1.25 * edge for edge in before["spacing"]]
    plan = plan_for_spacing("3d_fullres", before, spacing)
    assert plan["spacing"] == spacing
    median = plan["median_image_size_in_voxels"]
    assert median == [np.ceil(n / 1.25) for n in before["median_image_size_in_voxels"]]
    found = plan_topology(spacing, plan["patch_size"])
    assert plan["architecture"]["arch_kwargs"]["strides"] == found.strides
    assert all(
        edge % divisor == 0
        for edge, divisor in zip(plan["patch_size"], found.divisors, strict=True)
    )


@pytest.mark.parametrize(
    ("spacing", "says"), [([0.0, 1.0, 1.0], "must be positive"), ([90.0] * 3, "3 resolutions, got")]
)
def test_a_spacing_that_cannot_be_is_refused(spacing: list[float], says: str, phantom: Any) -> None:
    plans = read_json(phantom.preprocessed / "nnUNetPlans.json")
    with pytest.raises(UserError, match=says):
        plan_for_spacing("3d_fullres", plans["configurations"]["3d_fullres"], spacing)


def test_the_name_of_plans_tells_the_spacing() -> None:
    assert plans_of_spacing("nnUNetPlans", [3.0, 0.8, 0.8]) == "nnUNetPlans_3x0p8x0p8mm"
    assert plans_of_spacing("nnUNetPlans", None) == "nnUNetPlans"
