"""Would resampling an image take more memory than there is? Told before any is preprocessed.

A wrong spacing in a header, such as metres for millimetres, makes an image that has a few megabytes
in its file fill the memory, and the system kills the process without a word.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from nnunetv2.preprocessing.resampling.default_resampling import (
    compute_new_shape,
    determine_do_sep_z_and_axis,
)
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from semi_nnunet.data.file_bytes import plain
from semi_nnunet.data.image_files import Geometry
from semi_nnunet.data.integrity import CaseReport
from semi_nnunet.data.raw_description import RawDataset, relative_to
from semi_nnunet.util.errors import Problem, UserError
from semi_nnunet.util.memory import GIB, memory_bytes

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
        raw: the data set.
        reports: of all its cases.
        skipped: unlabelled cases that are set aside already.
        plans: nnU-Net's.
        configurations: which are to be preprocessed.
        skip_bad: set such cases aside instead of stopping.

    Returns:
        the cases set aside -> what is wrong with them.

    Raises:
        UserError: there are such cases; each with the shape and the memory it would need.
    """
    there, manager = memory_bytes(), PlansManager(dict(plans))
    if there is None:
        return {}
    files = {case.case: case.images[0] for case in raw.cases if case.subset == "unlabelled"}
    problems = {}
    for report in reports:
        if report.subset == "unlabelled" and report.case not in skipped and report.geometry:
            where = relative_to(files[report.case], str(raw.folder))
            if what := too_large(
                report.geometry, len(raw.channels), manager, configurations, there
            ):
                problems[report.case] = Problem(where, what, FIX)
    if problems and not skip_bad:
        what = f"resampling {len(problems)} unlabelled images takes more memory than there is"
        raise UserError(f"{what} (--skip-bad sets them aside):", list(problems.values()))
    if problems:
        print(f"set aside {len(problems)} unlabelled cases that do not fit into the memory:")
        print(*(f"  {problem}" for problem in problems.values()), sep="\n")
    return {case: [str(problem)] for case, problem in problems.items()}


def too_large(
    place: Geometry, channels: int, plans: PlansManager, configurations: Sequence[str], there: int
) -> str:
    """What an image becomes in the configuration that needs most, "" if ``there`` bytes do."""
    order = plans.transpose_forward
    targets = {name: plans.get_configuration(name).spacing for name in configurations}
    needs = {name: memory_need(place, channels, order, mm) for name, mm in targets.items()}
    worst = max(needs, key=lambda name: needs[name][1])
    shape, needed = needs[worst]
    if needed <= there:
        return ""
    return (
        f"for {worst} its {plain(place.shape)} voxels of {plain(place.spacing)} mm become "
        f"{plain(shape)} voxels, to which resampling them needs {needed / GIB:.1f} GiB of memory, "
        f"and this machine has {there / GIB:.1f} GiB"
    )


def memory_need(
    place: Geometry, channels: int, transpose: Sequence[int], target: Sequence[float]
) -> tuple[tuple[int, ...], int]:
    """The shape of an image after nnU-Net's resampling, and the memory that takes.

    Args:
        place: of the image. What nnU-Net crops away, where all is 0, is not known: the need is
            that of an image without such a border.
        channels: how many it has.
        transpose: the order of axes in the plans.
        target: spacing in mm of a configuration, in that order; two numbers are of 2D, which
            keeps the slices.

    Returns:
        shape; bytes at the peak.
    """
    old = [place.shape[axis] for axis in transpose]
    spacing = [place.spacing[axis] for axis in transpose]
    wanted = [*spacing[: len(spacing) - len(target)], *target]
    new = tuple(int(size) for size in compute_new_shape(old, spacing, wanted))
    by_slices, axis = determine_do_sep_z_and_axis(None, spacing, wanted)
    moves = by_slices and old[axis] != new[axis]
    a_voxel = bytes_a_voxel(channels, by_slices, moves)
    return new, 12 * channels * math.prod(old) + a_voxel * math.prod(new)


def bytes_a_voxel(channels: int, by_slices: bool, moves_slices: bool) -> int:
    """The memory that nnU-Net's default resampling takes for a new voxel, as measured.

    It holds the image as float32 (4 bytes a channel), one channel in float64 (8) and the label (2);
    before, each old voxel takes 4 and 8. Where slices are thick, they are resampled one by one,
    and the channel before is still there (8). Slices that move are resampled between each other,
    with the coordinates of all voxels, twice (48), and once those of the channel before (16 more).
    """
    one = 4 * channels + 10 + 48 * moves_slices
    return one + (8 * by_slices + 16 * moves_slices if channels > 1 else 0)
