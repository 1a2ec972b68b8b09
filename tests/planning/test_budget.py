"""Networks and inputs for a budget."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semi_nnunet.planning.budget import (
    COARSENING_FACTOR,
    SHOWN_SHARE,
    NetworkSize,
    accept_any_spacing,
    find_coarser_spacing,
    find_size_within,
    measure_step_seconds,
    name_budget_plans,
    reject_other_spacings,
    shrink_configuration,
)
from semi_nnunet.planning.plan import apply_budget, find_budget_sizes

CPU = torch.device("cpu")


@settings(max_examples=40)
@given(
    patch=st.lists(st.integers(8, 160), min_size=2, max_size=3),
    spacing=st.floats(0.3, 6),
    voxels=st.integers(100, 10**6),
)
def test_a_shrunken_patch_fits_its_strides_and_never_grows(
    patch: list[int], spacing: float, voxels: int
) -> None:
    arch = {
        "features_per_stage": [32] * 9,
        "n_conv_per_stage": [2] * 9,
        "n_conv_per_stage_decoder": [2] * 8,
    }
    plan = {
        "patch_size": patch,
        "spacing": [spacing] + [1.0] * (len(patch) - 1),
        "median_image_size_in_voxels": [2 * edge for edge in patch],
        "architecture": {"arch_kwargs": arch},
    }
    whole, small = (
        shrink_configuration(plan, NetworkSize(8, 10**9, 2)),
        shrink_configuration(plan, NetworkSize(8, voxels, 2)),
    )
    kwargs = small["architecture"]["arch_kwargs"]
    divisors = [math.prod(axis) for axis in zip(*kwargs["strides"], strict=True)]
    pairs = zip(small["patch_size"], divisors, strict=True)
    assert all(edge % divisor == 0 for edge, divisor in pairs)
    assert math.prod(small["patch_size"]) <= math.prod(whole["patch_size"])
    stages = kwargs["n_stages"]
    assert stages >= min(3, whole["architecture"]["arch_kwargs"]["n_stages"])
    assert len(kwargs["features_per_stage"]) == len(kwargs["n_conv_per_stage"]) == stages
    assert plan["patch_size"] == patch  # the original is unchanged


# ---- coarser images ----


def make_configuration(shape: list[int], spacing: list[float]) -> dict[str, Any]:
    return {"spacing": spacing, "median_image_size_in_voxels": shape, "patch_size": shape}


@pytest.mark.parametrize(
    ("shape", "spacing", "expected"),
    [
        ([96, 108], [1.0, 1.0], [1.0, 1.0]),  # most is shown
        ([192, 384], [1.0, 1.0], [2 * (2 * SHOWN_SHARE) ** 0.5] * 2),
        ([192, 192], [0.5, 0.5], [SHOWN_SHARE**0.5] * 2),
    ],
)
def test_images_are_made_coarser_until_the_patch_shows_most(
    shape: list[int], spacing: list[float], expected: list[float]
) -> None:
    configuration = make_configuration(shape, spacing)
    coarser = find_coarser_spacing(configuration, 96 * 96, accept_any_spacing)
    assert coarser == pytest.approx(expected, rel=COARSENING_FACTOR - 1)
    assert SHOWN_SHARE * np.prod(np.array(shape) * spacing / np.array(coarser)) <= 96 * 96


def test_thick_slices_stay_while_the_plane_is_finer() -> None:
    image = make_configuration([20, 200, 200], [5.0, 1.0, 1.0])
    coarser = find_coarser_spacing(image, 10 * 130 * 130, accept_any_spacing)
    assert coarser == pytest.approx([5, 2, 2], rel=COARSENING_FACTOR - 1)
    coarser = find_coarser_spacing(image, 10 * 60 * 60, accept_any_spacing)
    assert coarser[0] > 5 and coarser[1] == coarser[2] > 2.5


def test_images_get_no_coarser_than_the_labels_survive() -> None:
    image = make_configuration([20, 200, 200], [5.0, 1.0, 1.0])
    coarser = find_coarser_spacing(image, 10 * 60 * 60, lambda spacing: spacing[1] <= 1.6)
    assert coarser[0] == 5 and 1.6 / COARSENING_FACTOR < coarser[1] <= 1.6
    assert find_coarser_spacing(image, 10 * 60 * 60, reject_other_spacings) == image["spacing"]


# ---- seconds ----


def test_a_step_takes_time(prepared_dataset: Any) -> None:
    plans = prepared_dataset("labels", 1).plans
    configuration = plans["configurations"]["2d"]
    assert 0 < measure_step_seconds(configuration, 1, 4, torch.device("cpu"), repeats=1) < 60


def test_a_budget_of_seconds_is_kept_if_possible(
    phantom: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def features_as_seconds(configuration: dict[str, Any], *_: Any) -> float:
        sizes.append(configuration["architecture"]["arch_kwargs"]["features_per_stage"][0])
        return float(sizes[-1])

    monkeypatch.setattr("semi_nnunet.planning.budget.measure_step_seconds", features_as_seconds)
    budget_sizes = find_budget_sizes(phantom.plans, phantom.dataset_json, "13", CPU)
    plans = apply_budget(phantom.plans, budget_sizes, "small")
    for configuration in plans["configurations"].values():
        assert configuration["architecture"]["arch_kwargs"]["features_per_stage"][0] == 12


@pytest.mark.parametrize("affordable", [1000, 40, 16, 9, 1])
def test_the_first_size_within_the_seconds_is_used(
    affordable: int, phantom: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = phantom.plans["configurations"]["3d_fullres"]
    tried: list[float] = []

    def features_as_seconds(configuration: dict[str, Any], *_: Any) -> float:
        tried.append(configuration["architecture"]["arch_kwargs"]["features_per_stage"][0])
        return tried[-1]

    monkeypatch.setattr("semi_nnunet.planning.budget.measure_step_seconds", features_as_seconds)
    size = find_size_within(plan, affordable, 1, 4, CPU)
    assert tried == sorted(tried, reverse=True) and size.features == tried[-1]
    assert all(seconds > affordable for seconds in tried[:-1])
    assert size.features <= max(affordable, min(tried)) and size.batch_size >= 2


def test_the_name_of_plans_contains_the_budget() -> None:
    assert name_budget_plans("P", "cpu") == "P_cpu" and name_budget_plans("P", None) == "P"
    assert name_budget_plans("P", "0.5") == "P_0p5"  # a dot would start a file's ending
