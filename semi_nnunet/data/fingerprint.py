"""Statistics of preprocessed images, how far unlabelled images are from labelled ones, and which
classes only their place tells apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any

import numpy as np

from semi_nnunet.data.manifest import Entry

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
VOXELS = 10  # a class of fewer voxels has no place

# Two classes are told apart by their place alone where, in the cases that show both, their mean
# intensities differ by less than ALIKE on average and their centres by more than APART in a share
# of IN_ORDER of the cases, the same one first (both in standard deviations within the classes).
# The two halves of the hippocampus are .16 and 3.5 apart; the ventricles of the heart (ACDC), which
# their shape tells apart, .9 and 2.9.
ALIKE, APART, IN_ORDER = 0.4, 1.0, 0.95
LEAST_CASES = 3
MOST_CASES = 200  # that are looked at


def image_facts(
    data: np.ndarray, properties: Mapping[str, Any], voxels: int = 200_000
) -> dict[str, Any]:
    """Shape, original spacing (mm) and intensity quantiles of each channel.

    Args:
        data: a preprocessed image (C, z, y, x).
        properties: nnU-Net's, of the case.
        voxels: about how many to look at.
    """
    stride = max(1, data[0].size // voxels)
    samples = data.reshape(data.shape[0], -1)[:, ::stride]
    inside = samples[:, np.any(samples != 0, axis=0)]
    samples = inside if inside.shape[1] else samples
    return {
        "shape": [int(size) for size in data.shape[1:]],
        "spacing": [float(value) for value in properties["spacing"]],
        "quantiles": np.quantile(samples, QUANTILES, axis=1).T.round(4).tolist(),
    }


def label_facts(segmentation: np.ndarray) -> dict[str, Any]:
    """Fraction of slices (1, z, y, x) that show any foreground."""
    return {"foreground_slices": round(float((segmentation > 0).any((0, 2, 3)).mean()), 4)}


def class_facts(image: np.ndarray, locations: Mapping[Any, Any]) -> dict[str, Any]:
    """Where each class is, and how bright.

    Args:
        image: preprocessed (C, z, y, x).
        locations: of nnU-Net's ``class_locations``: class -> voxels (n, 4), the first column of
            which is 0. Regions and other sets of classes are left out.

    Returns:
        ``classes``: class, as text -> ``center`` and ``spread`` (mean and standard deviation of the
        voxels' places along each axis), ``mean`` and ``deviation`` (of each channel's intensities).
    """
    classes = {}
    for value, voxels in locations.items():
        if not isinstance(value, (int, np.integer)) or len(voxels) < VOXELS:
            continue
        places = np.asarray(voxels)[:, 1:]
        bright = image[:, places[:, 0], places[:, 1], places[:, 2]].astype(np.float64)
        found = {
            "center": places.mean(0),
            "spread": places.std(0),
            "mean": bright.mean(1),
            "deviation": bright.std(1),
        }
        classes[str(int(value))] = {name: one.round(3).tolist() for name, one in found.items()}
    return {"classes": classes}


def told_by_place(labelled: Iterable[Entry], dimensions: int) -> tuple[int, int] | None:
    """The first two classes that look alike and lie in a constant order along an axis, so that a
    mirrored image shows the one where the other is; None if there are none, or it is not known.

    Args:
        labelled: entries with the facts of :func:`class_facts`.
        dimensions: 2 or 3: the last axes, which the training mirrors.
    """
    known = [entry.facts["classes"] for entry in labelled if "classes" in entry.facts][:MOST_CASES]
    values = sorted({value for classes in known for value in classes}, key=int)
    if not values:
        return None
    some = next(classes[values[0]] for classes in known if values[0] in classes)
    absent = {name: [np.nan] * len(one) for name, one in some.items()}
    facts = {  # (case, class, axis or channel)
        name: np.array(
            [[classes.get(value, absent)[name] for value in values] for classes in known]
        )
        for name in some
    }
    for first, second in combinations(range(len(values)), 2):
        shown = ~np.isnan(facts["center"][:, [first, second], 0]).any(1)
        if shown.sum() >= LEAST_CASES:
            one, other = (
                {n: f[shown, which] for n, f in facts.items()} for which in (first, second)
            )
            bright = _distance(one, other, "mean", "deviation")
            place = _distance(one, other, "center", "spread")[:, -dimensions:]
            in_order = np.maximum((place > APART).mean(0), (place < -APART).mean(0))
            if np.abs(bright).mean(0).max() < ALIKE and in_order.max() >= IN_ORDER:
                return int(values[first]), int(values[second])
    return None


def _distance(
    one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray], mean: str, deviation: str
) -> np.ndarray:
    """How much larger ``one`` is in each case, along each axis or in each channel, in pooled
    deviations."""
    pooled = np.sqrt((np.square(one[deviation]) + np.square(other[deviation])) / 2)
    return np.subtract(one[mean], other[mean]) / np.maximum(pooled, 1e-6)


def foreground_slices(labelled: Iterable[Entry]) -> float:
    """Mean of :func:`label_facts` over the labelled cases; 1 where it is not known."""
    known = [
        entry.facts["foreground_slices"] for entry in labelled if "foreground_slices" in entry.facts
    ]
    return float(np.mean(known)) if known else 1.0


def intensity_shift(labelled: Iterable[Entry], unlabelled: Iterable[Entry]) -> float:
    """Mean distance between the average intensity quantiles of two sets; 0 where one is empty.

    Images are normalised: the unit is about one standard deviation of the labelled images.
    """
    profiles = [
        np.array([entry.facts["quantiles"] for entry in entries if "quantiles" in entry.facts])
        for entries in (labelled, unlabelled)
    ]
    if any(len(profile) == 0 for profile in profiles):
        return 0.0
    return float(np.abs(profiles[0].mean(0) - profiles[1].mean(0)).mean())
