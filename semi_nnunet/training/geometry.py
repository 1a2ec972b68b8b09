"""How far labelled patches are rotated: nnU-Net's range, narrowed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size

NNUNET_SCALES = (0.85, 1.25)  # from which nnU-Net works out how large a patch to rotate and scale


def limit_rotation(
    rotation: tuple[float, float], degrees: float, patch_size: Sequence[int], in_plane_only: bool
) -> tuple[tuple[float, float], Any] | None:
    """nnU-Net's range of rotations within a limit, and the larger patch that it is cut from.

    Args:
        rotation: nnU-Net's range, in radians.
        degrees: the limit.
        patch_size: of the plan, in voxels.
        in_plane_only: whether anisotropic patches are rotated slice by slice.

    Returns:
        The range in radians and the size in voxels; None where the limit changes nothing.
    """
    limit = math.radians(degrees)
    if limit >= max(rotation[1], -rotation[0]):
        return None
    limited = (max(rotation[0], -limit), min(rotation[1], limit))
    first_patch_size = get_patch_size(patch_size, *[limited] * 3, NNUNET_SCALES)
    if in_plane_only:
        first_patch_size[0] = patch_size[0]
    return limited, first_patch_size
