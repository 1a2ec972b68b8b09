"""Metrics of one predicted mask against its reference; their names contain the convention.

The rule for empty masks, also of :mod:`semi_nnunet.evaluation.lesions`:

* Both are empty: metrics of voxels are NaN and no mean counts them (as nnU-Net's Dice). Metrics of
  lesions count the case as correct: fractions are 1 and there are no false positives.
* Only one is empty: overlaps are 0 and distances are the diagonal of the image, the worst possible
  value, so that a missed organ never improves a mean (:class:`Measure` may set another distance).
  Fractions of lesions are 0, but without a lesion in the reference none is missed: the sensitivity
  is 1.
* A volume difference relative to an empty reference is NaN.

Comparisons also count a correctly absent class where another training invents it:
:func:`semi_nnunet.evaluation.values.credit_absence`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from semi_nnunet.evaluation.surfaces import SurfaceDistances, surface_distances

UNDEFINED = float("nan")


@dataclass(frozen=True)
class Measure:
    """Unit of distances, and tolerances up to which surfaces agree.

    Args:
        tolerances: name, as used in the names of columns -> value in the unit.
        unit: "mm", "voxels" for protocols that ignore the spacing, or "pixels" for pictures, which
            have no spacing.
        missed_distance: distance of a class that only one mask shows; None: diagonal of the image.
        axes: number of axes of the images; 2 for single slices and pictures.
    """

    tolerances: Mapping[str, float]
    unit: str = "mm"
    missed_distance: float | None = None
    axes: int = 3


def mask_metrics(
    prediction: np.ndarray, reference: np.ndarray, spacing_mm: Sequence[float], measure: Measure
) -> dict[str, float]:
    """Compute all metrics of one class.

    >>> mask = np.zeros((8, 8), dtype=bool)
    >>> mask[2:6, 2:6] = True
    >>> metrics = mask_metrics(np.roll(mask, 1, axis=0), mask, (2.0, 1.0), Measure({}, axes=2))
    >>> metrics["dice"], metrics["hd95_edge_mm"]
    (0.75, 2.0)

    Args:
        prediction: bool (Y, X) or (Z, Y, X).
        reference: the same shape.
        spacing_mm: of each axis.
        measure: unit and tolerances.

    Returns:
        Column -> value, in the order of :func:`describe_columns`.
    """
    spacing = spacing_mm if measure.unit == "mm" else [1.0] * len(spacing_mm)
    metrics = overlap_metrics(prediction, reference, spacing, measure)
    if prediction.any() and reference.any():
        edge = surface_distances(prediction, reference, spacing, "edge")
        surfel = surface_distances(prediction, reference, spacing, "surfel")
        return metrics | distance_metrics(edge, surfel, measure)
    names = [column for column in describe_columns(measure) if column not in metrics]
    if not prediction.any() and not reference.any():
        return metrics | dict.fromkeys(names, UNDEFINED)
    diagonal = float(np.linalg.norm(np.multiply(prediction.shape, spacing)))
    missed = diagonal if measure.missed_distance is None else measure.missed_distance
    return metrics | {name: 0.0 if name.startswith("nsd") else missed for name in names}


def overlap_metrics(
    prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float], measure: Measure
) -> dict[str, float]:
    """Compute Dice, IoU and differences of volume."""
    shared, ours, theirs = count_shared(prediction, reference)
    column, factor = find_size_column(measure)
    difference = (ours - theirs) * float(np.prod(spacing)) * factor
    return {
        "dice": divide_or_nan(2 * shared, ours + theirs),
        "iou": divide_or_nan(shared, ours + theirs - shared),
        column: difference if ours or theirs else UNDEFINED,
        "relative_volume_difference": divide_or_nan(ours - theirs, theirs),
    }


def compute_dice(prediction: np.ndarray, reference: np.ndarray) -> float:
    """Compute the Dice of two masks; NaN if both are empty."""
    shared, ours, theirs = count_shared(prediction, reference)
    return divide_or_nan(2 * shared, ours + theirs)


def count_shared(prediction: np.ndarray, reference: np.ndarray) -> tuple[int, int, int]:
    """Count the voxels that two masks share, and those of each."""
    masks = (prediction & reference, prediction, reference)
    shared, ours, theirs = (int(np.count_nonzero(mask)) for mask in masks)
    return shared, ours, theirs


def find_size_column(measure: Measure) -> tuple[str, float]:
    """Return the column of volumes or areas, and the factor on the product of the spacings."""
    if measure.unit != "mm":
        return f"{'volume' if measure.axes == 3 else 'area'}_difference_{measure.unit}", 1.0
    return ("volume_difference_ml", 1e-3) if measure.axes == 3 else ("area_difference_mm2", 1.0)


def divide_or_nan(numerator: float, denominator: float) -> float:
    """Return the quotient, or NaN if the denominator is 0."""
    return numerator / denominator if denominator else UNDEFINED


def distance_metrics(
    edge: SurfaceDistances, surfel: SurfaceDistances, measure: Measure
) -> dict[str, float]:
    """Compute all metrics of distances."""
    unit, tolerances = measure.unit, measure.tolerances
    return {
        f"hd95_edge_{unit}": pooled_percentile(edge, 95),
        f"asd_edge_{unit}": float(edge.to_reference.mean()),
        f"assd_edge_{unit}": mean_distance(edge),
        **{f"nsd_edge_{name}": surface_dice(edge, size) for name, size in tolerances.items()},
        f"hd95_surfel_{unit}": robust_hausdorff(surfel, 95),
        f"assd_surfel_{unit}": mean_distance(surfel),
        **{f"nsd_surfel_{name}": surface_dice(surfel, size) for name, size in tolerances.items()},
    }


def describe_columns(measure: Measure) -> dict[str, str]:
    """Return the meaning of each column, for readers of the tables."""
    edge, surfel = "all surface voxels have the same weight", "surface elements weigh their area"
    nsd, unit = f"fraction of both surfaces within {{}} {measure.unit} of the other", measure.unit
    near = {name: nsd.format(f"{size:g}") for name, size in measure.tolerances.items()}
    return {
        "dice": "2 |A and B| / (|A| + |B|)",
        "iou": "|A and B| / |A or B|, also called Jaccard",
        find_size_column(measure)[0]: "prediction - reference",
        "relative_volume_difference": "(prediction - reference) / reference; null if the reference "
        "is empty",
        f"hd95_edge_{unit}": "95th percentile of the distances of both surfaces together; "
        f"{edge} (medpy)",
        f"asd_edge_{unit}": "mean distance from the prediction's surface to the reference's; "
        f"{edge} (medpy's asd, the ASD of papers on LA)",
        f"assd_edge_{unit}": f"mean distance of both surfaces together; {edge} (MONAI)",
        **{f"nsd_edge_{name}": f"{near[name]}; {edge} (MONAI)" for name in near},
        f"hd95_surfel_{unit}": "the larger of both directions' 95th percentiles; "
        f"{surfel} (DeepMind)",
        f"assd_surfel_{unit}": f"mean distance of both surfaces together; {surfel}",
        **{f"nsd_surfel_{name}": f"{near[name]}; {surfel} (DeepMind, FLARE)" for name in near},
    }


def describe_empty_masks(measure: Measure, with_lesions: bool) -> str:
    """Return the rule for empty masks, for readers of the tables."""
    distance = "the diagonal of the image"
    if measure.missed_distance is not None:
        distance = f"{measure.missed_distance:g} {measure.unit}"
    rule = (
        "both: not counted (null). One: overlaps are 0, a volume relative to an empty reference is "
        f"not counted, distances are {distance}"
    )
    if not with_lesions:
        return rule
    return (
        f"{rule}. Lesions, both: correct, fractions are 1. One: fractions are 0, but a reference "
        "without lesions has a sensitivity of 1"
    )


# ---- metrics of distances ----


def pooled_percentile(distances: SurfaceDistances, percent: float) -> float:
    """Return the unweighted percentile of the distances of both surfaces together (medpy)."""
    pooled = np.concatenate((distances.to_reference, distances.to_prediction))
    return float(np.percentile(pooled, percent))


def robust_hausdorff(distances: SurfaceDistances, percent: float) -> float:
    """Return the larger of the two directions' weighted percentiles (Nikolov et al. 2018)."""
    return max(
        weighted_percentile(distances.to_reference, distances.prediction_weights, percent),
        weighted_percentile(distances.to_prediction, distances.reference_weights, percent),
    )


def weighted_percentile(values: np.ndarray, weights: np.ndarray, percent: float) -> float:
    """Return the smallest value that at least ``percent`` of the weight does not exceed."""
    order = np.argsort(values, kind="stable")
    cumulated = np.cumsum(weights[order], dtype=np.float64)
    index = np.searchsorted(cumulated / cumulated[-1], percent / 100)
    return float(values[order][min(int(index), len(values) - 1)])


def mean_distance(distances: SurfaceDistances) -> float:
    """Return the weighted mean of the distances of both surfaces together."""
    values = np.concatenate((distances.to_reference, distances.to_prediction))
    weights = np.concatenate((distances.prediction_weights, distances.reference_weights))
    return float(np.average(values, weights=weights))


def surface_dice(distances: SurfaceDistances, tolerance: float) -> float:
    """Return the fraction of both surfaces within the tolerance of the other (NSD)."""
    ours, theirs = distances.prediction_weights, distances.reference_weights
    near = ours[distances.to_reference <= tolerance].sum(dtype=np.float64)
    near += theirs[distances.to_prediction <= tolerance].sum(dtype=np.float64)
    return float(near / (ours.sum(dtype=np.float64) + theirs.sum(dtype=np.float64)))
