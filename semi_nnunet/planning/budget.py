"""Plans for a budget: fewer features, a smaller patch and batch, fewer steps.

If the smaller patch would show too little of an image, the image is resampled to larger voxels, as
far as the labels survive it.
"""

from __future__ import annotations

import bisect
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from semi_nnunet.planning.topology import (
    FEWEST_STAGES,
    Topology,
    build_planned_network,
    plan_topology,
    replace_spacing,
    replace_topology,
)

KeepsLabels = Callable[[Sequence[float]], bool]  # whether the labels survive a spacing


@dataclass(frozen=True)
class NetworkSize:
    """The size of a network and its input.

    Args:
        features: of the highest resolution; they double with each stage, up to 8 times as many.
        patch_voxels: largest number of voxels of a patch.
        batch_size: patches of each stream.
    """

    features: int
    patch_voxels: int
    batch_size: int


CPU_SIZES = {2: NetworkSize(16, 96 * 96, 12), 3: NetworkSize(16, 40 * 40 * 40, 2)}
CPU_LENGTH = {"epochs": 24, "steps_per_epoch": 50, "validation_steps_per_epoch": 5}
SHOWN_SHARE = 0.85  # of the median image's voxels in a patch (nnU-Net, for 3d_lowres: a quarter)
COARSENING_FACTOR = 1.03  # of the spacing, in each step of the search
SMALLER_FACTORS = (  # of features, of voxels x batch
    (1.0, 1.0), (0.75, 1.0), (0.5, 1.0), (0.5, 0.5), (0.5, 0.25), (0.25, 0.25),
)  # fmt: skip
LARGER_FACTORS = ((2.0, 4.0), (2.0, 2.0), (1.5, 1.5))


def name_budget_plans(plans: str, budget: str | None) -> str:
    """Return the name of plans for a budget; without budget the name itself.

    >>> name_budget_plans("nnUNetPlans", "0.5")
    'nnUNetPlans_0p5'
    """
    return f"{plans}_{budget.replace('.', 'p')}" if budget else plans


def accept_any_spacing(spacing: Sequence[float]) -> bool:
    """Return True, as if labels survived every spacing."""
    return True


def reject_other_spacings(spacing: Sequence[float]) -> bool:
    """Return False, as if labels survived only their present spacing."""
    return False


def fit_to_size(
    configuration: Mapping[str, Any],
    size: NetworkSize,
    keeps_labels: KeepsLabels = accept_any_spacing,
) -> dict[str, Any]:
    """Return a copy of a configuration with at most ``size``, for images as coarse as needed.

    Args:
        configuration: of nnU-Net's plans.
        size: of the network and its input.
        keeps_labels: whether the labels survive a spacing; images get no coarser than that.
    """
    spacing = find_coarser_spacing(configuration, size.patch_voxels, keeps_labels)
    return shrink_configuration(replace_spacing(configuration, spacing), size)


def find_coarser_spacing(
    configuration: Mapping[str, Any], patch_voxels: int, keeps_labels: KeepsLabels
) -> list[float]:
    """Return the spacing at which a patch shows enough of an image, or the last that keeps labels.

    The spacing grows as nnU-Net's of 3d_lowres: all axes alike, but first axes with less than half
    of the largest spacing. The share is ours: in 600 steps on polyps, patches that showed 14, 25,
    56 and 100 % of the image gave the baseline a Dice of .47, .53, .63 and .68; on left atria,
    patches of 42 and 86 % gave the unified method .843 and .862. But thin structures vanish from
    images that are too coarse.
    """
    original = np.array(configuration["spacing"], dtype=float)
    median = np.array(configuration["median_image_size_in_voxels"][-len(original) :], dtype=float)
    spacing, path = original.copy(), [original]
    while patch_voxels < SHOWN_SHARE * np.prod(median * original / spacing):
        fine = spacing.max() / spacing > 2
        spacing[fine if fine.any() else slice(None)] *= COARSENING_FACTOR
        path.append(spacing.copy())
    rounded = [[round(float(edge), 4) for edge in spacing] for spacing in path]
    last = bisect.bisect_left(rounded[1:], True, key=lambda spacing: not keeps_labels(spacing))
    return rounded[last] if last else list(configuration["spacing"])


def shrink_configuration(configuration: Mapping[str, Any], size: NetworkSize) -> dict[str, Any]:
    """Return a copy of a plan's configuration with at most ``size``; spacing and data stay.

    nnU-Net's own rule plans strides and kernels for the smaller patch.
    """
    topology = _plan_smaller_patch(configuration, size.patch_voxels)
    features = [size.features * 2 ** min(stage, 3) for stage in range(len(topology.strides))]
    plan = replace_topology(configuration, topology, features)
    plan["batch_size"] = max(2, size.batch_size)
    return plan


def _plan_smaller_patch(configuration: Mapping[str, Any], max_voxels: int) -> Topology:
    """Return nnU-Net's topology for a patch of at most so many voxels.

    The patch is reduced axis by axis, first the axis that is largest relative to the median image,
    to sizes that the strides divide. It stays larger if less than 8 voxels along an axis or less
    than three resolutions would be left.
    """
    spacing = configuration["spacing"]
    median = configuration["median_image_size_in_voxels"][-len(spacing) :]
    best = plan_topology(spacing, configuration["patch_size"])
    while math.prod(best.patch) > max_voxels:
        axes = [
            (edge > 2 * divisor, edge / max(1, middle), axis)
            for axis, (edge, divisor, middle) in enumerate(
                zip(best.patch, best.divisors, median, strict=True)
            )
            if edge - divisor >= 8
        ]
        for *_, axis in sorted(axes, reverse=True):
            edges = list(best.patch)
            edges[axis] -= best.divisors[axis]
            smaller = plan_topology(spacing, edges)
            is_smaller = math.prod(smaller.patch) < math.prod(best.patch)
            if len(smaller.strides) >= FEWEST_STAGES and is_smaller:
                best = smaller
                break
        else:
            break
    return best


def measure_step_seconds(
    configuration: Mapping[str, Any],
    channels: int,
    heads: int,
    device: torch.device,
    repeats: int = 3,
) -> float:
    """Measure a supervised forward and backward pass, the fastest of ``repeats``."""
    network = build_planned_network(configuration, channels, heads).to(device)
    shape = (configuration["batch_size"], channels, *configuration["patch_size"])
    x = torch.zeros(shape, device=device)
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        network(x).sum().backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return min(times[1:])


def find_size_within(
    configuration: Mapping[str, Any],
    seconds: float,
    channels: int,
    heads: int,
    device: torch.device,
) -> NetworkSize:
    """Return the largest size with at most ``seconds`` per supervised step, or the smallest one."""
    base = size = CPU_SIZES[len(configuration["patch_size"])]
    for features, voxels in (*LARGER_FACTORS, *SMALLER_FACTORS):
        size = NetworkSize(
            max(4, int(base.features * features)),
            int(base.patch_voxels * voxels),
            max(2, int(base.batch_size * min(1.0, voxels))),
        )
        plan = fit_to_size(configuration, size)
        if measure_step_seconds(plan, channels, heads, device) <= seconds:
            break
    return size
