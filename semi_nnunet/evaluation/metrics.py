"""Metrics of one predicted mask against its reference; which convention is in the name.

Where a mask is empty: if both are, there is nothing to find and every metric is NaN, which no mean
counts (as nnU-Net's Dice). If one is, overlaps are 0 and distances are the diagonal of the image,
the worst there is, so that a missed organ never improves a mean; :class:`Measure` takes another
value for it. The volume that is relative to an empty reference is NaN, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from semi_nnunet.evaluation.surfaces import SurfaceDistances, surface_distances

UNDEFINED = float("nan")


@dataclass(frozen=True)
class Measure:
    """In what distances are measured, and up to which one surfaces agree.

    Args:
        tolerances: name, as it is to stand in the columns' names -> value in the unit.
        unit: "mm", "voxels" for protocols that ignore the spacing, or "pixels" of pictures that
            have none.
        missed_distance: of a class that only one mask shows; None: the diagonal of the image.
    """

    tolerances: Mapping[str, float]
    unit: str = "mm"
    missed_distance: float | None = None
    axes: int = 3  # of the images; two of single slices and pictures


def mask_metrics(
    prediction: np.ndarray, reference: np.ndarray, spacing_mm: Sequence[float], measure: Measure
) -> dict[str, float]:
    """All metrics of one class.

    Args:
        prediction: bool (Y, X) or (Z, Y, X).
        reference: the same shape.
        spacing_mm: of each axis.
        measure: unit and tolerances.

    Returns:
        column -> value, in the order of :func:`column_meanings`.
    """
    spacing = spacing_mm if measure.unit == "mm" else [1.0] * len(spacing_mm)
    found = overlap_metrics(prediction, reference, spacing, measure)
    if prediction.any() and reference.any():
        edge = surface_distances(prediction, reference, spacing, "edge")
        surfel = surface_distances(prediction, reference, spacing, "surfel")
        return found | distance_metrics(edge, surfel, measure)
    names = [column for column in column_meanings(measure) if column not in found]
    if not prediction.any() and not reference.any():
        return found | dict.fromkeys(names, UNDEFINED)
    diagonal = float(np.linalg.norm(np.multiply(prediction.shape, spacing)))
    missed = diagonal if measure.missed_distance is None else measure.missed_distance
    return found | {name: 0.0 if name.startswith("nsd") else missed for name in names}


def overlap_metrics(
    prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float], measure: Measure
) -> dict[str, float]:
    """Dice, IoU and volumes."""
    both = int(np.count_nonzero(prediction & reference))
    ours, theirs = int(np.count_nonzero(prediction)), int(np.count_nonzero(reference))
    column, of_a_voxel = size_column(measure)
    difference = (ours - theirs) * float(np.prod(spacing)) * of_a_voxel
    return {
        "dice": ratio(2 * both, ours + theirs),
        "iou": ratio(both, ours + theirs - both),
        column: difference if ours or theirs else UNDEFINED,
        "relative_volume_difference": ratio(ours - theirs, theirs),
    }


def size_column(measure: Measure) -> tuple[str, float]:
    """The column of volumes or areas, and the factor on the product of the spacings."""
    if measure.unit != "mm":
        return f"{'volume' if measure.axes == 3 else 'area'}_difference_{measure.unit}", 1.0
    return ("volume_difference_ml", 1e-3) if measure.axes == 3 else ("area_difference_mm2", 1.0)


def ratio(part: float, whole: float) -> float:
    """NaN where there is nothing to divide by."""
    return part / whole if whole else UNDEFINED


def distance_metrics(
    edge: SurfaceDistances, surfel: SurfaceDistances, measure: Measure
) -> dict[str, float]:
    """What is made of the distances; both surfaces exist."""
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


def column_meanings(measure: Measure) -> dict[str, str]:
    """What each column is, for the tables' readers."""
    edge, surfel = "surface voxels count alike", "surface elements count by their area"
    nsd, unit = f"fraction of both surfaces within {{}} {measure.unit} of the other", measure.unit
    near = {name: nsd.format(f"{size:g}") for name, size in measure.tolerances.items()}
    return {
        "dice": "2 |A and B| / (|A| + |B|)",
        "iou": "|A and B| / |A or B|, also called Jaccard",
        size_column(measure)[0]: "prediction - reference",
        "relative_volume_difference": "(prediction - reference) / reference; null where there is "
        "no reference",
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


# ---- of distances ----


def pooled_percentile(distances: SurfaceDistances, percent: float) -> float:
    """Of the distances of both surfaces together, unweighted (medpy's hd95)."""
    together = np.concatenate((distances.to_reference, distances.to_prediction))
    return float(np.percentile(together, percent))


def robust_hausdorff(distances: SurfaceDistances, percent: float) -> float:
    """The larger of the two directions' weighted percentiles (Nikolov et al. 2018)."""
    return max(
        weighted_percentile(distances.to_reference, distances.prediction_weights, percent),
        weighted_percentile(distances.to_prediction, distances.reference_weights, percent),
    )


def weighted_percentile(values: np.ndarray, weights: np.ndarray, percent: float) -> float:
    """The smallest value that at least ``percent`` of the weight does not exceed."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order], dtype=np.float64)
    place = np.searchsorted(reached / reached[-1], percent / 100)
    return float(values[order][min(int(place), len(values) - 1)])


def mean_distance(distances: SurfaceDistances) -> float:
    """Weighted mean of the distances of both surfaces together."""
    values = np.concatenate((distances.to_reference, distances.to_prediction))
    weights = np.concatenate((distances.prediction_weights, distances.reference_weights))
    return float(np.average(values, weights=weights))


def surface_dice(distances: SurfaceDistances, tolerance: float) -> float:
    """Fraction of both surfaces that lies within the tolerance of the other (NSD)."""
    ours, theirs = distances.prediction_weights, distances.reference_weights
    near = ours[distances.to_reference <= tolerance].sum(dtype=np.float64)
    near += theirs[distances.to_prediction <= tolerance].sum(dtype=np.float64)
    return float(near / (ours.sum(dtype=np.float64) + theirs.sum(dtype=np.float64)))
