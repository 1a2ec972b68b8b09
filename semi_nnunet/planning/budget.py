"""Shrink an nnU-Net plan to what a budget allows: fewer features, a smaller patch and batch, fewer steps."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from nnunetv2.experiment_planning.experiment_planners.network_topology import (
    get_pool_and_conv_props,
)
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans


@dataclass(frozen=True)
class Size:
    """How large a network and its input are.

    Args:
        features: of the highest resolution; they double with each stage, up to 8 times as many.
        patch_voxels: the largest number of voxels of a patch.
        batch_size: patches of each stream.
    """

    features: int
    patch_voxels: int
    batch_size: int


CPU = {2: Size(16, 96 * 96, 12), 3: Size(16, 40 * 40 * 40, 2)}
CPU_LENGTH = {"epochs": 24, "steps_per_epoch": 50, "validation_steps_per_epoch": 5}
SMALLER = (
    (1.0, 1.0),
    (0.75, 1.0),
    (0.5, 1.0),
    (0.5, 0.5),
    (0.5, 0.25),
    (0.25, 0.25),
)  # features, voxels x batch
LARGER = ((2.0, 4.0), (2.0, 2.0), (1.5, 1.5))


def shrink(configuration: Mapping[str, Any], size: Size) -> dict[str, Any]:
    """A copy of a plan's configuration with at most ``size``; spacing and preprocessing stay.

    The patch is reduced axis by axis, the one that is largest relative to the median image first, to sizes the
    network's strides divide; strides and kernels are planned anew by nnU-Net's own rule.
    """
    plan = copy.deepcopy(dict(configuration))
    dimensions = len(plan["patch_size"])
    median = [float(edge) for edge in plan["median_image_size_in_voxels"]][-dimensions:]
    patch = [int(edge) for edge in plan["patch_size"]]
    _, strides, kernels, patch, divisible = get_pool_and_conv_props(
        plan["spacing"], patch, 4, 999999
    )
    while math.prod(int(edge) for edge in patch) > size.patch_voxels:
        axis = int(
            np.argmax(
                [
                    edge / m if edge > 2 * d else 0
                    for edge, m, d in zip(patch, median, divisible, strict=True)
                ]
            )
        )
        smaller = [int(edge) for edge in patch]
        smaller[axis] -= int(divisible[axis])
        if smaller[axis] < 8:
            break
        _, strides, kernels, patch, divisible = get_pool_and_conv_props(
            plan["spacing"], smaller, 4, 999999
        )
    stages = len(strides)
    arch = plan["architecture"]["arch_kwargs"]
    blocks = "n_blocks_per_stage" if "n_blocks_per_stage" in arch else "n_conv_per_stage"
    arch.update(
        n_stages=stages,
        strides=[[int(s) for s in stride] for stride in strides],
        kernel_sizes=[[int(k) for k in kernel] for kernel in kernels],
        features_per_stage=[
            min(size.features * 2**stage, size.features * 8) for stage in range(stages)
        ],
    )
    arch[blocks] = list(arch[blocks])[:stages]
    arch["n_conv_per_stage_decoder"] = list(arch["n_conv_per_stage_decoder"])[: stages - 1]
    plan["patch_size"] = [int(edge) for edge in patch]
    plan["batch_size"] = max(2, size.batch_size)
    return plan


def seconds_per_step(
    configuration: Mapping[str, Any],
    channels: int,
    heads: int,
    device: torch.device,
    repeats: int = 3,
) -> float:
    """Measured time of a supervised forward and backward pass, the fastest of ``repeats``."""
    architecture = configuration["architecture"]
    network = get_network_from_plans(
        architecture["network_class_name"],
        architecture["arch_kwargs"],
        architecture["_kw_requires_import"],
        channels,
        heads,
        deep_supervision=False,
    ).to(device)
    x = torch.zeros(
        (configuration["batch_size"], channels, *configuration["patch_size"]), device=device
    )
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        network(x).sum().backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return min(times[1:])


def fit_to_seconds(
    configuration: Mapping[str, Any],
    seconds: float,
    channels: int,
    heads: int,
    device: torch.device,
) -> dict[str, Any]:
    """The largest shrunken plan whose supervised step takes at most ``seconds`` on ``device``, by trying."""
    base = CPU[len(configuration["patch_size"])]
    plan = dict(configuration)
    for features, voxels in (*LARGER, *SMALLER):
        size = Size(
            max(4, int(base.features * features)),
            int(base.patch_voxels * voxels),
            max(2, int(base.batch_size * min(1.0, voxels))),
        )
        plan = shrink(configuration, size)
        if seconds_per_step(plan, channels, heads, device) <= seconds:
            return plan
    return plan
