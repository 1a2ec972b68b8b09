"""Geometric views that are undone exactly: flips and quarter turns, without interpolation."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class GridView:
    """Quarter turns in one plane, then flips; of a whole batch.

    >>> x = torch.arange(4).view(1, 1, 2, 2)
    >>> view = GridView(flips=(1,))
    >>> view(x).flatten().tolist(), torch.equal(view.inverse(view(x)), x)
    ([1, 0, 3, 2], True)

    Args:
        flips: spatial axes (0: the first after batch and channels) to be reversed.
        plane: two spatial axes of equal length, or None for no turn.
        quarter_turns: 0 to 3.
    """

    flips: tuple[int, ...] = ()
    plane: tuple[int, int] | None = None
    quarter_turns: int = 0

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the view of ``x`` (B, C, *spatial)."""
        if self.plane is not None:
            x = x.rot90(self.quarter_turns, [axis + 2 for axis in self.plane])
        return x.flip([axis + 2 for axis in self.flips]) if self.flips else x

    def inverse(self, x: torch.Tensor) -> torch.Tensor:
        """Transform a view back to the original frame."""
        x = x.flip([axis + 2 for axis in self.flips]) if self.flips else x
        if self.plane is not None:
            x = x.rot90(-self.quarter_turns, [axis + 2 for axis in self.plane])
        return x


def list_square_planes(
    patch_size: Sequence[int], spacing: Sequence[float]
) -> list[tuple[int, int]]:
    """Return the planes in which a quarter turn keeps the patch's shape and the voxels' size.

    >>> list_square_planes((16, 64, 64), (3.0, 0.8, 0.8))
    [(1, 2)]
    """
    return [
        (first, second)
        for first, second in itertools.combinations(range(len(patch_size)), 2)
        if patch_size[first] == patch_size[second]
        and abs(spacing[first] - spacing[second]) <= 0.01 * max(spacing[first], spacing[second])
    ]


def sample_grid_view(flip_axes: Sequence[int], planes: Sequence[tuple[int, int]]) -> GridView:
    """Sample a view: each flip with probability 1/2, and a random turn in one of the planes."""

    def number_below(limit: int) -> int:
        return int(torch.randint(limit, ()))

    flips = tuple(axis for axis in flip_axes if number_below(2))
    if not planes:
        return GridView(flips)
    return GridView(flips, planes[number_below(len(planes))], number_below(4))
