"""Distances between the surfaces of two masks, by either of the two conventions in use.

They give different numbers on the same masks, so every metric made of them must say which it used.

* **edge**: a surface is the mask's outermost voxels, each counts the same, distances are between
  voxel centres (MONAI, medpy and with them most papers on LA and ACDC).
* **surfel**: a surface is the marching-cubes surface between voxel centres; each element counts
  with its area, distances are between the corners of voxels (Nikolov et al. 2018,
  arXiv:1809.04430; DeepMind's surface-distance, with which FLARE ranks).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.ndimage import distance_transform_edt
from skimage.measure import marching_cubes, mesh_surface_area


@dataclass(frozen=True)
class SurfaceDistances:
    """From every element of one surface to the nearest of the other; at least one element each.

    Args:
        to_reference: (N,) of the elements of the prediction's surface.
        to_prediction: (M,) of the elements of the reference's surface.
        prediction_weights: (N,) how much each element counts: 1, or its area (2-D: length).
        reference_weights: (M,) the same.
    """

    to_reference: np.ndarray
    to_prediction: np.ndarray
    prediction_weights: np.ndarray
    reference_weights: np.ndarray


def surface_distances(
    prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float], convention: str
) -> SurfaceDistances:
    """Distances between the surfaces of two masks.

    Args:
        prediction: bool (Y, X) or (Z, Y, X), with at least one True.
        reference: the same shape, with at least one True.
        spacing: of each axis, in the unit of the distances.
        convention: "edge" or "surfel".
    """
    surface_of = CONVENTIONS[convention]
    around = bounding_box(prediction | reference)
    ours, theirs = (surface_of(mask[around], spacing) for mask in (prediction, reference))
    to_theirs = distance_transform_edt(theirs == 0, sampling=spacing)
    to_ours = distance_transform_edt(ours == 0, sampling=spacing)
    return SurfaceDistances(
        to_theirs[ours > 0], to_ours[theirs > 0], ours[ours > 0], theirs[theirs > 0]
    )


def bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    """The smallest box around the True voxels, of which there is at least one."""
    box = []
    for axis in range(mask.ndim):
        other = tuple(a for a in range(mask.ndim) if a != axis)
        found = np.flatnonzero(mask.any(other))
        box.append(slice(int(found[0]), int(found[-1]) + 1))
    return tuple(box)


def edge_weights(mask: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """1 on voxels of the mask that have a face neighbour outside it, 0 elsewhere.

    What lies beyond the array is outside.
    """
    padded, inner = np.pad(mask, 1), mask.copy()
    middle = [slice(1, -1)] * mask.ndim
    for axis in range(mask.ndim):
        for shifted in (slice(None, -2), slice(2, None)):
            place = (*middle[:axis], shifted, *middle[axis + 1 :])
            inner &= padded[place]
    return (mask & ~inner).astype(np.float32)


def surfel_weights(mask: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Area (2-D: length) of the surface inside each cube of voxel centres, one more on each axis.

    What lies beyond the array is outside.
    """
    padded = np.pad(mask, 1)
    code = np.zeros([size + 1 for size in mask.shape], dtype=np.uint8)
    for bit, corner in enumerate(corners(mask.ndim)):
        place = tuple(
            slice(first, first + size) for first, size in zip(corner, code.shape, strict=True)
        )
        code |= padded[place].astype(np.uint8) << bit
    return element_sizes(tuple(float(size) for size in spacing))[code]


CONVENTIONS: dict[str, Callable[[np.ndarray, Sequence[float]], np.ndarray]] = {
    "edge": edge_weights,
    "surfel": surfel_weights,
}


def corners(dimensions: int) -> list[tuple[int, ...]]:
    """The corners of a square or cube; the place in the list is the bit of the corner."""
    return list(itertools.product((0, 1), repeat=dimensions))


@lru_cache(maxsize=64)
def element_sizes(spacing: tuple[float, ...]) -> np.ndarray:
    """Size of the surface inside a square or cube, for each combination of corners in the mask.

    Marching cubes (Lorensen & Cline 1987), its vertices half-way between corners. Where it is
    ambiguous what is connected, the smaller of the surfaces of the mask and of its complement is
    taken, which gives DeepMind's table.
    """
    dimensions = len(spacing)
    sizes = np.zeros(2 ** (2**dimensions))
    for code in range(1, len(sizes) - 1):
        inside = np.array([code >> bit & 1 for bit in range(2**dimensions)], dtype=float)
        inside = inside.reshape([2] * dimensions)  # in the order of corners()
        sizes[code] = area(inside, spacing) if dimensions == 3 else length(inside, spacing)
    return np.minimum(sizes, sizes[::-1]).astype(np.float32)  # codes backwards: the complements


def area(inside: np.ndarray, spacing: Sequence[float]) -> float:
    """Of the surface in one cube."""
    vertices, faces, _, _ = marching_cubes(inside, 0.5, spacing=spacing, method="lorensen")
    return float(mesh_surface_area(vertices, faces))


def length(inside: np.ndarray, spacing: Sequence[float]) -> float:
    """Of the contour in one square: across it, or around one corner or two opposite ones."""
    if inside.sum() == 2 and inside[0, 0] != inside[1, 1]:
        along = 1 if inside[0, 0] == inside[0, 1] else 0
        return float(spacing[along])
    corner = float(np.hypot(spacing[0] / 2, spacing[1] / 2))
    return 2 * corner if inside.sum() == 2 else corner
