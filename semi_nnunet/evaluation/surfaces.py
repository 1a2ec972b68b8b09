"""Distances between the surfaces of two masks, by either of the two conventions in use.

The two give different numbers on the same masks, so every metric names the one it uses.

* **edge**: the surface is the outermost voxels of a mask, all with the same weight, and distances
  are between voxel centres (MONAI, medpy, and so most papers on LA and ACDC).
* **surfel**: the surface is the marching-cubes surface between voxel centres, each element weighs
  its area, and distances are between corners of voxels (Nikolov et al. 2018, arXiv:1809.04430;
  DeepMind's surface-distance, with which FLARE ranks).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.ndimage import binary_erosion, distance_transform_edt
from skimage.measure import marching_cubes, mesh_surface_area


@dataclass(frozen=True)
class SurfaceDistances:
    """Distance from every element of one surface to the nearest element of the other.

    Args:
        to_reference: (N,) of the elements of the prediction's surface, at least one.
        to_prediction: (M,) of the elements of the reference's surface, at least one.
        prediction_weights: (N,) weight of each element: 1, or its area (2-D: length).
        reference_weights: (M,) the same.
    """

    to_reference: np.ndarray
    to_prediction: np.ndarray
    prediction_weights: np.ndarray
    reference_weights: np.ndarray


def surface_distances(
    prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float], convention: str
) -> SurfaceDistances:
    """Measure the distances between the surfaces of two masks.

    >>> prediction, reference = np.zeros((2, 4, 4), dtype=bool)
    >>> prediction[0, 0] = reference[3, 0] = True
    >>> surface_distances(prediction, reference, (2.0, 1.0), "edge").to_reference
    array([6.])

    Args:
        prediction: bool (Y, X) or (Z, Y, X), with at least one True.
        reference: the same shape, with at least one True.
        spacing: of each axis, in the unit of the distances.
        convention: "edge" or "surfel".
    """
    weigh_surface = CONVENTIONS[convention]
    box = find_bounding_box(prediction | reference)
    ours, theirs = (weigh_surface(mask[box], spacing) for mask in (prediction, reference))
    to_theirs = distance_transform_edt(theirs == 0, sampling=spacing)
    to_ours = distance_transform_edt(ours == 0, sampling=spacing)
    return SurfaceDistances(
        to_theirs[ours > 0], to_ours[theirs > 0], ours[ours > 0], theirs[theirs > 0]
    )


def find_bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    """Return the smallest box around the True voxels of a mask that is not empty."""
    box = []
    for axis in range(mask.ndim):
        other_axes = tuple(a for a in range(mask.ndim) if a != axis)
        indices = np.flatnonzero(mask.any(other_axes))
        box.append(slice(int(indices[0]), int(indices[-1]) + 1))
    return tuple(box)


def weigh_edges(mask: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Return 1 on voxels with a face neighbour outside the mask, 0 elsewhere.

    Everything beyond the array is outside.
    """
    return (mask & ~binary_erosion(mask)).astype(np.float32)


def weigh_surfels(mask: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Return the area (2-D: length) of the surface inside each cube of voxel centres.

    Everything beyond the array is outside, so there is one cube more along each axis.
    """
    padded = np.pad(mask, 1)
    code = np.zeros([size + 1 for size in mask.shape], dtype=np.uint8)
    for bit, corner in enumerate(list_corners(mask.ndim)):
        window = tuple(
            slice(first, first + size) for first, size in zip(corner, code.shape, strict=True)
        )
        code |= padded[window].astype(np.uint8) << bit
    return tabulate_element_sizes(tuple(float(size) for size in spacing))[code]


CONVENTIONS: dict[str, Callable[[np.ndarray, Sequence[float]], np.ndarray]] = {
    "edge": weigh_edges,
    "surfel": weigh_surfels,
}


def list_corners(dimensions: int) -> list[tuple[int, ...]]:
    """Return the corners of a square or cube; the index of a corner is its bit in the code."""
    return list(itertools.product((0, 1), repeat=dimensions))


@lru_cache(maxsize=64)
def tabulate_element_sizes(spacing: tuple[float, ...]) -> np.ndarray:
    """Return the size of the surface in a square or cube, for each set of corners in the mask.

    Marching cubes (Lorensen & Cline 1987) with vertices half-way between corners. Where the
    connection is ambiguous, the smaller of the surfaces of the mask and of its complement counts,
    which gives DeepMind's table.
    """
    dimensions = len(spacing)
    sizes = np.zeros(2 ** (2**dimensions))
    for code in range(1, len(sizes) - 1):
        inside = np.array([code >> bit & 1 for bit in range(2**dimensions)], dtype=float)
        inside = inside.reshape([2] * dimensions)  # in the order of list_corners()
        measure = measure_cube_area if dimensions == 3 else measure_square_length
        sizes[code] = measure(inside, spacing)
    return np.minimum(sizes, sizes[::-1]).astype(np.float32)  # codes backwards: the complements


def measure_cube_area(inside: np.ndarray, spacing: Sequence[float]) -> float:
    """Return the area of the surface in one cube."""
    vertices, faces, _, _ = marching_cubes(inside, 0.5, spacing=spacing, method="lorensen")
    return float(mesh_surface_area(vertices, faces))


def measure_square_length(inside: np.ndarray, spacing: Sequence[float]) -> float:
    """Return the length of the contour in one square: across it, or around one or two corners."""
    if inside.sum() == 2 and inside[0, 0] != inside[1, 1]:
        along = 1 if inside[0, 0] == inside[0, 1] else 0
        return float(spacing[along])
    corner = float(np.hypot(spacing[0] / 2, spacing[1] / 2))
    return 2 * corner if inside.sum() == 2 else corner
