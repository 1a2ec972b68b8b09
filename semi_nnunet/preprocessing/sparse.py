"""Resample sparse labels without losing annotated voxels.

nnU-Net resamples each label value linearly and keeps it where its share is at least one half. A
curve of one voxel, a point or a slice between ignored ones has a smaller share on a coarser grid,
so that it would vanish into the ignored voxels around it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager


class SparseConfiguration(ConfigurationManager):
    """A configuration of nnU-Net whose labels keep every annotated voxel.

    Args:
        configuration: of nnU-Net's plans.
        ignore: nnU-Net's ignore label.
    """

    def __init__(self, configuration: ConfigurationManager, ignore: int):
        super().__init__(configuration.configuration)
        self.ignore = ignore

    @property
    def resampling_fn_seg(self) -> Callable[..., np.ndarray]:
        """nnU-Net's function, after which annotated voxels mark the voxels that they lie in."""
        resample = super().resampling_fn_seg

        def resample_and_mark(
            label: np.ndarray, shape: Sequence[int], *spacings: Any
        ) -> np.ndarray:
            return mark_annotated(label, resample(label, shape, *spacings), self.ignore)

        return resample_and_mark


def mark_annotated(label: np.ndarray, resampled: np.ndarray, ignore: int) -> np.ndarray:
    """Give ignored voxels of a resampled label the annotations that lie in them.

    If several annotated voxels lie in one, the largest value counts, so that background never
    replaces a class. A label without ignored voxels is returned as it is.

    >>> label = np.array([[[[3, 1, 3, 3, 0, 3]]]])
    >>> mark_annotated(label, np.array([[[[3, 3, 3]]]]), ignore=3).tolist()
    [[[[1, 3, 0]]]]

    Args:
        label: integers (1, z, y, x); -1 is background outside the body.
        resampled: the same (1, z, y, x) on another grid of the same extent.
        ignore: the value of ignored voxels.
    """
    if not (label == ignore).any() or label.shape == resampled.shape:
        return resampled
    annotated = np.nonzero(label[0] != ignore)
    values = label[0][annotated]
    cells = [
        (2 * index + 1) * new // (2 * old)
        for index, old, new in zip(annotated, label.shape[1:], resampled.shape[1:], strict=True)
    ]
    is_lost = resampled[0][tuple(cells)] == ignore
    order = np.argsort(values[is_lost], kind="stable")  # of two in a cell, the last one counts
    marked = np.array(resampled)
    marked[0][tuple(cell[is_lost][order] for cell in cells)] = values[is_lost][order]
    return marked
