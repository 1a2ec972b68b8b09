"""Smaller networks for the same images: fewer features and stages, selected by their cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window

from semi_nnunet.planning.architecture import measure_network_size
from semi_nnunet.planning.topology import (
    FEWEST_STAGES,
    Topology,
    build_planned_network,
    replace_topology,
)
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.timing import in_turn

SHARES = (1.0, 0.75, 0.625, 0.5, 0.375, 0.25, 0.1875, 0.125, 0.0625)  # of a stage's features
FEWEST_FEATURES = 4
TILE_STEP = 0.5  # of the patch, by which nnU-Net moves it over an image
REPEATS = 3


@dataclass(frozen=True, eq=False)  # its configuration cannot be hashed
class SlimNetwork:
    """A network for the patches of a plan.

    Args:
        configuration: of the plans, with this network.
        operations: floating-point operations of its forward pass on a patch.
        parameters: number of parameters.
    """

    configuration: dict[str, Any]
    operations: int
    parameters: int

    @property
    def features(self) -> list[int]:
        """Features of each stage."""
        return list(self.configuration["architecture"]["arch_kwargs"]["features_per_stage"])


def list_slim_networks(
    configuration: Mapping[str, Any], channels: int, heads: int
) -> list[SlimNetwork]:
    """List networks of at most the features and stages of a plan's, the costliest first.

    Patch and spacing stay, and so do the strides and kernels of the remaining stages. Removing a
    stage removes the coarsest resolution.

    Args:
        configuration: of nnU-Net's plans, with one of its own networks.
        channels: of the images, with those of a cascade's previous stage.
        heads: output channels of the network.
    """
    arch = configuration["architecture"]["arch_kwargs"]
    all_stages, networks = len(arch["strides"]), list[SlimNetwork]()
    for stages in range(min(FEWEST_STAGES, all_stages), all_stages + 1):
        topology = Topology(
            list(configuration["patch_size"]), arch["strides"][:stages],
            arch["kernel_sizes"][:stages], [],
        )  # fmt: skip
        for share in SHARES:
            features = [
                max(FEWEST_FEATURES, round(share * count))
                for count in arch["features_per_stage"][:stages]
            ]
            smaller = replace_topology(configuration, topology, features)
            parameters, operations = measure_network_size(smaller, channels, heads)
            networks.append(SlimNetwork(smaller, operations, parameters))
    unique = {(tuple(slim.features), slim.operations): slim for slim in networks}
    return sorted(unique.values(), key=lambda slim: -slim.operations)


def count_tiles(configuration: Mapping[str, Any], slices: int) -> int:
    """Count the patches that nnU-Net predicts of the median image, without mirrored ones.

    Args:
        configuration: of the plans.
        slices: of the median image; a 2d network sees each separately.
    """
    patch = list(configuration["patch_size"])
    image = [int(edge) for edge in configuration["median_image_size_in_voxels"][-len(patch) :]]
    padded = [max(edge, tile) for edge, tile in zip(image, patch, strict=True)]
    steps = compute_steps_for_sliding_window(tuple(padded), tuple(patch), TILE_STEP)
    return math.prod(map(len, steps)) * (slices if len(patch) == 2 else 1)


def measure_image_seconds(
    slim: SlimNetwork, channels: int, heads: int, device: torch.device, slices: int
) -> float:
    """Measure the time of a network on all patches of the median image, without mirrored ones.

    The result is the median of some passes over one patch, times the number of patches. Reading,
    resampling and writing take the same additional time for every network.
    """
    network = build_planned_network(slim.configuration, channels, heads).to(device).eval()
    x = torch.zeros((1, channels, *slim.configuration["patch_size"]), device=device)
    with torch.inference_mode():
        seconds = in_turn({"pass": partial(network, x)}, REPEATS, device, uncounted=1)
    return seconds["pass"].median * count_tiles(slim.configuration, slices)


def find_largest_within(
    networks: Sequence[SlimNetwork],
    share: float,
    seconds: float | None,
    takes: Callable[[SlimNetwork], float],
) -> SlimNetwork:
    """Return the costliest network within the limits.

    >>> networks = [SlimNetwork({}, operations, 1) for operations in (100, 50, 10)]
    >>> find_largest_within(networks, 0.5, None, lambda slim: 0.0).operations
    50

    Args:
        networks: the costliest first, to which the share refers.
        share: allowed share of the first network's operations.
        seconds: allowed time for the median image; None: any.
        takes: measures a network's seconds for the median image; called for few networks.

    Raises:
        UserError: even the smallest network exceeds a limit.
    """
    allowed = [slim for slim in networks if slim.operations <= share * networks[0].operations]
    if not allowed:
        least = networks[-1].operations / networks[0].operations
        raise UserError(
            f"--share must be at least {least:.4f}, the share of the smallest network, got "
            f"{share:g}",
            fix="raise it",
        )
    if seconds is None:
        return allowed[0]
    first, last = 0, len(allowed) - 1
    while first < last:
        middle = (first + last) // 2
        if takes(allowed[middle]) <= seconds:
            last = middle
        else:
            first = middle + 1
    if (least := takes(allowed[first])) > seconds:
        raise UserError(
            f"--seconds must be at least {least:.2g}, the time of the smallest network, got "
            f"{seconds:g}",
            fix="raise it, or make images coarser: semi_nnunet plan --spacing, and "
            "semi_nnunet pseudo-dataset for their labels",
        )
    return allowed[first]
