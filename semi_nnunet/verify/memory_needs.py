"""Memory check: find images whose resampling would need more memory than the machine has.

A wrong spacing in a header, such as metres for millimetres, makes an image that has a few megabytes
in its file fill the memory, and the system kills the process without a word.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from nnunetv2.preprocessing.resampling.default_resampling import (
    compute_new_shape,
    determine_do_sep_z_and_axis,
)
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from semi_nnunet.raw.description import RawDataset
from semi_nnunet.raw.readers import Geometry, format_numbers
from semi_nnunet.util.errors import Problem, UserError
from semi_nnunet.util.memory import GIB, memory_bytes
from semi_nnunet.verify.reports import CaseReport

logger = logging.getLogger(__name__)
FIX = "correct the spacing in its header, remove the case, or take a machine with more memory"


def check_memory(
    raw: RawDataset,
    reports: Sequence[CaseReport],
    skipped: Collection[str],
    plans: Mapping[str, Any],
    configurations: Sequence[str],
    skip_bad: bool,
) -> dict[str, list[str]]:
    """Find the unlabelled images for whose resampling this machine has not enough memory.

    Args:
        skipped: unlabelled cases that are skipped already.
        skip_bad: skip such cases instead of raising.

    Returns:
        The newly skipped cases -> their problem.

    Raises:
        UserError: with the shape and the memory that each such case would need.
    """
    available, manager = memory_bytes(), PlansManager(dict(plans))
    if available is None:
        return {}
    files = {case.case: case.images[0] for case in raw.cases if case.subset == "unlabelled"}
    problems = {}
    for report in reports:
        if report.subset == "unlabelled" and report.case not in skipped and report.geometry:
            defect = find_memory_problem(
                report.geometry, len(raw.channels), manager, configurations, available
            )
            if defect:
                file_name = os.path.relpath(files[report.case], raw.folder)
                problems[report.case] = Problem(file_name, defect, FIX)
    if problems and not skip_bad:
        defect = f"resampling {len(problems)} unlabelled images takes more memory than there is"
        raise UserError(f"{defect} (--skip-bad sets them aside):", list(problems.values()))
    if problems:
        number = len(problems)
        logger.info("set aside %d unlabelled cases that do not fit into the memory:", number)
        for problem in problems.values():
            logger.info("  %s", problem)
    return {case: [str(problem)] for case, problem in problems.items()}


def find_memory_problem(
    geometry: Geometry,
    channels: int,
    plans: PlansManager,
    configurations: Sequence[str],
    available: int,
) -> str:
    """Describe the most demanding configuration, or return "" if ``available`` bytes suffice."""
    order = plans.transpose_forward
    targets = {name: plans.get_configuration(name).spacing for name in configurations}
    needs = {name: estimate_memory(geometry, channels, order, mm) for name, mm in targets.items()}
    worst = max(needs, key=lambda name: needs[name][1])
    shape, required = needs[worst]
    if required <= available:
        return ""
    return (
        f"for {worst} its {format_numbers(geometry.shape)} voxels of "
        f"{format_numbers(geometry.spacing)} mm become {format_numbers(shape)} voxels, to which "
        f"resampling them needs {required / GIB:.1f} GiB of memory,"
        f" and this machine has {available / GIB:.1f} GiB"
    )


def estimate_memory(
    geometry: Geometry, channels: int, transpose: Sequence[int], target: Sequence[float]
) -> tuple[tuple[int, ...], int]:
    """Return the shape of an image after nnU-Net's resampling, and the bytes at the peak.

    Args:
        geometry: of the image. nnU-Net may crop a border of zeros first, which is ignored here.
        transpose: the order of axes in the plans.
        target: spacing in mm of a configuration, in that order; 2D has two numbers and keeps the
            slices.
    """
    shape = [geometry.shape[axis] for axis in transpose]
    spacing = [geometry.spacing[axis] for axis in transpose]
    new_spacing = [*spacing[: len(spacing) - len(target)], *target]
    new_shape = tuple(int(size) for size in compute_new_shape(shape, spacing, new_spacing))
    by_slices, axis = determine_do_sep_z_and_axis(None, spacing, new_spacing)
    moves = by_slices and shape[axis] != new_shape[axis]
    per_voxel = get_bytes_per_voxel(channels, by_slices, moves)
    return new_shape, 12 * channels * math.prod(shape) + per_voxel * math.prod(new_shape)


def get_bytes_per_voxel(channels: int, by_slices: bool, moves_slices: bool) -> int:
    """Return the measured memory of nnU-Net's default resampling for each new voxel.

    The image is held as float32 (4 bytes a channel), one channel in float64 (8) and the label (2);
    each old voxel takes 4 and 8. Thick slices are resampled one by one, with the previous channel
    still in memory (8). Slices that move are also interpolated between each other, with the
    coordinates of all voxels, twice (48), and once those of the previous channel (16 more).
    """
    total = 4 * channels + 10 + 48 * moves_slices
    return total + (8 * by_slices + 16 * moves_slices if channels > 1 else 0)
