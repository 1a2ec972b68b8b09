"""Patch sizes and spacings of a plan, with the strides and kernels that nnU-Net plans for them."""

from __future__ import annotations

import copy
import math
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
    """The patch, strides and kernels of a U-Net.

    Args:
        patch: edges in voxels, padded to multiples of the divisors.
        strides: of each stage, along each axis.
        kernels: kernel sizes of each stage, along each axis.
        divisors: product of the strides along each axis.
    """

    patch: list[int]
    strides: list[list[int]]
    kernels: list[list[int]]
    divisors: list[int]


def plan_topology(spacing: Sequence[float], patch: Sequence[int]) -> Topology:
    """Apply nnU-Net's planning rule, which pads the patch to a size that the strides divide.

    >>> plan_topology((1.0, 1.0), (30, 64)).patch
    [32, 64]
    """
    edges = [int(edge) for edge in patch]
    _, *result = get_pool_and_conv_props(spacing, edges, SMALLEST_MAP, 999999)
    strides, kernels, padded, divisors = result
    return Topology(
        [int(edge) for edge in padded],
        [[int(s) for s in stride] for stride in strides],
        [[int(k) for k in kernel] for kernel in kernels],
        [int(divisor) for divisor in divisors],
    )


def replace_topology(
    configuration: Mapping[str, Any], topology: Topology, features: Sequence[int]
) -> dict[str, Any]:
    """Return a copy of a plan's configuration with this patch and network; spacing and data stay.

    Args:
        configuration: of nnU-Net's plans, with one of its own networks.
        topology: the patch and network.
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
    """Build the network of a plan's configuration, with random weights and a single output.

    Args:
        configuration: of plans.
        channels: of the input.
        heads: channels of the output.
        allow_init: initialise the weights as planned; False: PyTorch's own initialisation.
    """
    architecture = configuration["architecture"]
    network: nn.Module = get_network_from_plans(
        architecture["network_class_name"], architecture["arch_kwargs"],
        architecture["_kw_requires_import"], channels, heads,
        allow_init=allow_init, deep_supervision=False,
    )  # fmt: skip
    return network


def take_first(values: Sequence[int], count: int) -> list[int]:
    """Return the first values, repeating the last one if there are too few.

    >>> take_first([1, 3], 4)
    [1, 3, 3, 3]
    """
    return [values[min(index, len(values) - 1)] for index in range(count)]


def name_patch_plans(plans: str, patch: Sequence[int] | None) -> str:
    """Return the name of plans with another patch.

    >>> name_patch_plans("nnUNetPlans", [80, 112, 112])
    'nnUNetPlans_80x112x112'
    """
    return f"{plans}_{'x'.join(map(str, patch))}" if patch else plans


def replace_patch(
    name: str, configuration: Mapping[str, Any], patch: Sequence[int]
) -> dict[str, Any]:
    """Return a copy of a plan's configuration with a given patch, for example a publication's.

    nnU-Net's rule plans the strides, and with them the number of stages, for the patch; features
    and batch size stay.

    Args:
        name: of the configuration, for messages.
        configuration: of nnU-Net's plans, with one of its own networks.
        patch: edges in voxels, in the order of the plans.

    Raises:
        UserError: the patch is too small, or not a multiple of the divisors.
    """
    if min(patch) < 1:
        raise UserError(f"--patch must be positive, got {list(patch)}", fix="correct it")
    topology = plan_topology(configuration["spacing"], patch)
    if topology.patch != list(patch):
        raise UserError(
            f"--patch of {name} must be a multiple of {topology.divisors} along the axes, got "
            f"{list(patch)}",
            fix=f"--patch {' '.join(map(str, topology.patch))}",
        )
    require_enough_stages(topology, f"--patch of {name}", list(patch), "give a larger patch")
    return replace_topology(
        configuration, topology, list_features(configuration, len(topology.strides))
    )


def require_enough_stages(topology: Topology, option: str, patch: list[int], fix: str) -> None:
    """Check that a patch leaves a network enough resolutions.

    Args:
        topology: planned for the patch.
        option: that the user gave.
        patch: edges in voxels.
        fix: for the message.

    Raises:
        UserError: there are too few.
    """
    stages = len(topology.strides)
    if stages < FEWEST_STAGES:
        raise UserError(
            f"{option} must leave a network at least {FEWEST_STAGES} resolutions, got {stages} "
            f"with a patch of {patch}",
            fix=fix,
        )


def list_features(configuration: Mapping[str, Any], stages: int) -> list[int]:
    """Return the features of each stage: the configuration's own, then doubled up to the limit."""
    features = list(configuration["architecture"]["arch_kwargs"]["features_per_stage"])
    limit = MOST_FEATURES[len(configuration["patch_size"])]
    while len(features) < stages:
        features.append(min(2 * features[-1], limit))
    return features[:stages]


def name_spacing_plans(plans: str, spacing: Sequence[float] | None) -> str:
    """Return the name of plans with another spacing.

    >>> name_spacing_plans("nnUNetPlans", [3.0, 0.8, 0.8])
    'nnUNetPlans_3x0p8x0p8mm'
    """
    return f"{plans}_{spell_spacing(spacing)}mm" if spacing else plans


def spell_spacing(spacing: Sequence[float]) -> str:
    """Format a spacing as part of a name, for example 3x0p8x0p8."""
    return "x".join(f"{edge:g}" for edge in spacing).replace(".", "p")


def replace_spacing(configuration: Mapping[str, Any], spacing: Sequence[float]) -> dict[str, Any]:
    """Return a copy of a plan's configuration for images of another spacing.

    Median size and patch follow; strides and kernels stay.

    Args:
        configuration: of nnU-Net's plans.
        spacing: mm along each axis, in the order of the plans.
    """
    plan = copy.deepcopy(dict(configuration))
    original = np.array(configuration["spacing"], dtype=float)
    if np.array_equal(spacing, original):
        return plan
    median = np.array(configuration["median_image_size_in_voxels"][-len(original) :], dtype=float)
    median = np.ceil(median * original / np.array(spacing))
    plan["spacing"] = list(spacing)
    plan["median_image_size_in_voxels"] = [float(edge) for edge in median]
    plan["patch_size"] = [
        int(min(edge, middle)) for edge, middle in zip(plan["patch_size"], median, strict=True)
    ]
    return plan


def plan_for_spacing(
    name: str, configuration: Mapping[str, Any], spacing: Sequence[float]
) -> dict[str, Any]:
    """Return a copy of a plan's configuration for a given spacing, with the network for it.

    Args:
        name: of the configuration, for messages.
        configuration: of nnU-Net's plans, with one of its own networks.
        spacing: mm along each axis, in the order of the plans.

    Raises:
        UserError: the spacing is not positive, or leaves too small an image.
    """
    if not all(0 < value < math.inf for value in spacing):
        raise UserError(f"--spacing must be positive, got {list(spacing)}", fix="correct it")
    plan = replace_spacing(configuration, spacing)
    topology = plan_topology(spacing, plan["patch_size"])
    option = f"--spacing of {name}"
    require_enough_stages(topology, option, plan["patch_size"], "give a smaller spacing")
    return replace_topology(plan, topology, list_features(plan, len(topology.strides)))
