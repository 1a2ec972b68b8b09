"""A patch, and the strides and kernels that nnU-Net's rule plans for it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from nnunetv2.experiment_planning.experiment_planners.network_topology import (
    get_pool_and_conv_props,
)
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import nn

from semi_nnunet.util.errors import UserError

SMALLEST_MAP = 4  # voxels along an axis at the coarsest resolution (nnU-Net)
MOST_FEATURES = {2: 512, 3: 320}  # of a stage (nnU-Net)
FEWEST_STAGES = 3  # nnU-Net's deep supervision fails with two


@dataclass(frozen=True)
class Topology:
    """What a U-Net does with a patch.

    Args:
        patch: edges in voxels, padded to what the strides divide.
        strides: of each stage, along each axis.
        kernels: sizes, of each stage, along each axis.
        divisors: what each edge of the patch is a multiple of.
    """

    patch: list[int]
    strides: list[list[int]]
    kernels: list[list[int]]
    divisors: list[int]


def plan_topology(spacing: Sequence[float], patch: Sequence[int]) -> Topology:
    """nnU-Net's planning rule: it pads the patch to what the strides divide."""
    edges = [int(edge) for edge in patch]
    _, *found = get_pool_and_conv_props(spacing, edges, SMALLEST_MAP, 999999)
    strides, kernels, padded, divisors = found
    return Topology(
        [int(edge) for edge in padded],
        [[int(s) for s in stride] for stride in strides],
        [[int(k) for k in kernel] for kernel in kernels],
        [int(divisor) for divisor in divisors],
    )


def replace_topology(
    configuration: Mapping[str, Any], topology: Topology, features: Sequence[int]
) -> dict[str, Any]:
    """A copy of a plan's configuration with this patch and network; spacing and data stay.

    Args:
        configuration: of nnU-Net's plans, with one of its own networks.
        topology: see there.
        features: of each stage.
    """
    plan = copy.deepcopy(dict(configuration))
    arch, stages = plan["architecture"]["arch_kwargs"], len(topology.strides)
    blocks = "n_blocks_per_stage" if "n_blocks_per_stage" in arch else "n_conv_per_stage"
    arch.update(
        n_stages=stages,
        strides=topology.strides,
        kernel_sizes=topology.kernels,
        features_per_stage=list(features),
    )
    arch[blocks] = take_first(arch[blocks], stages)
    arch["n_conv_per_stage_decoder"] = take_first(arch["n_conv_per_stage_decoder"], stages - 1)
    plan["patch_size"] = topology.patch
    return plan


def build_planned_network(
    configuration: Mapping[str, Any], channels: int, heads: int, allow_init: bool = True
) -> nn.Module:
    """The network of a plan's configuration, with random weights and one output.

    Args:
        configuration: of plans.
        channels: of its input.
        heads: channels of its output.
        allow_init: draw the weights as the network asks for, not as PyTorch does anyway.
    """
    architecture = configuration["architecture"]
    network: nn.Module = get_network_from_plans(
        architecture["network_class_name"], architecture["arch_kwargs"],
        architecture["_kw_requires_import"], channels, heads,
        allow_init=allow_init, deep_supervision=False,
    )  # fmt: skip
    return network


def take_first(values: Sequence[int], count: int) -> list[int]:
    """The first of them; the last again where there are too few."""
    return [values[min(index, len(values) - 1)] for index in range(count)]


def plans_of_patch(plans: str, patch: Sequence[int] | None) -> str:
    """The name of plans with another patch, for example nnUNetPlans_80x112x112."""
    return f"{plans}_{'x'.join(map(str, patch))}" if patch else plans


def replace_patch(
    name: str, configuration: Mapping[str, Any], patch: Sequence[int]
) -> dict[str, Any]:
    """A copy of a plan's configuration with a given patch, as a publication may have one.

    The strides, and with them the number of stages, follow the patch as nnU-Net plans them;
    features and batch size stay.

    Args:
        name: of the configuration, for messages.
        configuration: of nnU-Net's plans, with one of its own networks.
        patch: edges in voxels, in the order of the plans.

    Raises:
        UserError: the patch is too small, or no multiple of what the strides divide.
    """
    if min(patch) < 1:
        raise UserError(f"--patch must be positive, got {list(patch)}", fix="correct it")
    found = plan_topology(configuration["spacing"], patch)
    if found.patch != list(patch):
        nearest = " ".join(map(str, found.patch))
        raise UserError(
            f"--patch of {name} must be a multiple of {found.divisors} along the axes, got "
            f"{list(patch)}",
            fix=f"--patch {nearest}",
        )
    return require_enough_stages(
        configuration, found, f"--patch of {name}", f"{list(patch)}. Fix: a larger patch"
    )


def require_enough_stages(
    configuration: Mapping[str, Any], found: Topology, what: str, seen: str
) -> dict[str, Any]:
    """The configuration :func:`replace_topology`, with as many features as its stages need.

    Args:
        configuration: of nnU-Net's plans, with one of its own networks.
        found: what is planned for its patch.
        what: a person asked for.
        seen: the patch, and the fix.

    Raises:
        UserError: there are too few stages.
    """
    stages = len(found.strides)
    if stages < FEWEST_STAGES:
        raise UserError(
            f"{what} must leave a network at least {FEWEST_STAGES} resolutions, got {stages} with "
            f"{seen}"
        )
    return replace_topology(configuration, found, list_features(configuration, stages))


def list_features(configuration: Mapping[str, Any], stages: int) -> list[int]:
    """The features of so many stages: the configuration's own, then twice as many each, as far as
    nnU-Net goes.
    """
    features = list(configuration["architecture"]["arch_kwargs"]["features_per_stage"])
    most = MOST_FEATURES[len(configuration["patch_size"])]
    while len(features) < stages:
        features.append(min(2 * features[-1], most))
    return features[:stages]


def plans_of_spacing(plans: str, spacing: Sequence[float] | None) -> str:
    """The name of plans with another spacing, for example nnUNetPlans_3x0p8x0p8mm."""
    return f"{plans}_{spell_spacing(spacing)}mm" if spacing else plans


def spell_spacing(spacing: Sequence[float]) -> str:
    """A spacing as part of a name, for example 3x0p8x0p8."""
    return "x".join(f"{edge:g}" for edge in spacing).replace(".", "p")


def replace_spacing(configuration: Mapping[str, Any], spacing: Sequence[float]) -> dict[str, Any]:
    """A copy of a plan's configuration for images of another spacing.

    Median size and patch follow; strides and kernels stay.

    Args:
        configuration: of nnU-Net's plans.
        spacing: mm along each axis, in the order of the plans.
    """
    plan = copy.deepcopy(dict(configuration))
    before = np.array(configuration["spacing"], dtype=float)
    if np.array_equal(spacing, before):
        return plan
    median = np.array(configuration["median_image_size_in_voxels"][-len(before) :], dtype=float)
    median = np.ceil(median * before / np.array(spacing))
    plan["spacing"] = list(spacing)
    plan["median_image_size_in_voxels"] = [float(edge) for edge in median]
    plan["patch_size"] = [
        int(min(edge, middle)) for edge, middle in zip(plan["patch_size"], median, strict=True)
    ]
    return plan


def plan_for_spacing(
    name: str, configuration: Mapping[str, Any], spacing: Sequence[float]
) -> dict[str, Any]:
    """A copy of a plan's configuration for a spacing that a person wants, with the network for it.

    Args:
        name: of the configuration, for messages.
        configuration: of nnU-Net's plans, with one of its own networks.
        spacing: mm along each axis, in the order of the plans.

    Raises:
        UserError: the spacing is not positive, or leaves too small an image.
    """
    if min(spacing) <= 0:
        raise UserError(f"--spacing must be positive, got {list(spacing)}", fix="correct it")
    plan = replace_spacing(configuration, spacing)
    found = plan_topology(spacing, plan["patch_size"])
    seen = f"a patch of {plan['patch_size']}. Fix: a smaller spacing"
    return require_enough_stages(plan, found, f"--spacing of {name}", seen)
