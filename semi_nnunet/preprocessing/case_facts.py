"""Statistics of preprocessed images: intensities, distance between sets, look-alike classes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any

import numpy as np
from scipy import ndimage

from semi_nnunet.core.components import label_components
from semi_nnunet.preprocessing.manifest import ManifestEntry

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
MIN_VOXELS = 10  # a class of fewer voxels has no reliable position

# Two classes look alike if, in the cases that show both, their mean intensities differ by less than
# ALIKE on average. They have a constant order if their centres differ by more than APART, in the
# same direction, in at least the share IN_ORDER of these cases. Both are in standard deviations
# within the classes: the halves of the hippocampus are .16 and 3.5 apart, the ventricles of the
# heart (ACDC) .9 and 2.9.
ALIKE, APART, IN_ORDER = 0.4, 1.0, 0.95
MIN_CASES, MAX_CASES = 3, 200


def compute_image_facts(
    data: np.ndarray, properties: Mapping[str, Any], voxels: int = 200_000
) -> dict[str, Any]:
    """Return shape, original spacing (mm) and the quantiles of each channel.

    The quantiles are over the voxels that are not zero in all channels, or over all voxels if there
    are none.

    Args:
        data: a preprocessed image (C, z, y, x).
        voxels: approximate number of voxels to sample.
    """
    stride = max(1, data[0].size // voxels)
    while math.gcd(stride, data.shape[-1]) > 1:  # else only some columns would be sampled
        stride += 1
    samples = data.reshape(data.shape[0], -1)[:, ::stride]
    inside = samples[:, np.any(samples != 0, axis=0)]
    samples = inside if inside.shape[1] else samples
    return {
        "shape": [int(size) for size in data.shape[1:]],
        "spacing": [float(value) for value in properties["spacing"]],
        "quantiles": np.quantile(samples, QUANTILES, axis=1).T.round(4).tolist(),
    }


def compute_label_facts(segmentation: np.ndarray, ignore: int | None = None) -> dict[str, Any]:
    """Return the fraction of annotated slices of (1, z, y, x) that show any foreground.

    Without an ignore label, also the number of connected pieces of the foreground.

    >>> compute_label_facts(np.array([[[[0, 0]], [[0, 2]]]]))
    {'foreground_slices': 0.5, 'pieces': 1}

    Args:
        ignore: nnU-Net's ignore label; its fraction of all voxels is returned as "ignored", and its
            fraction of the voxels of slices with any annotation as "ignored_in_slices". Without an
            annotated slice all three are 1.
    """
    if ignore is None:
        shows = (segmentation > 0).any((0, 2, 3))
        pieces = count_foreground_pieces(segmentation[0] > 0)
        return {"foreground_slices": round(float(shows.mean()), 4), "pieces": pieces}
    is_ignored = segmentation == ignore
    annotated = ~is_ignored.all((0, 2, 3))
    if not annotated.any():
        return {"foreground_slices": 1.0, "ignored": 1.0, "ignored_in_slices": 1.0}
    shows = ((segmentation > 0) & ~is_ignored).any((0, 2, 3))[annotated]
    return {
        "foreground_slices": round(float(shows.mean()), 4),
        "ignored": float(is_ignored.mean()),
        "ignored_in_slices": round(float(is_ignored[:, annotated].mean()), 4),
    }


def count_foreground_pieces(mask: np.ndarray) -> int:
    """Return the number of connected components of a mask.

    >>> count_foreground_pieces(np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0], [1, 0, 0]], bool))
    2
    """
    boxes = ndimage.find_objects(mask.astype(np.uint8))  # a part of the image takes less memory
    return int(label_components(mask[boxes[0]]).max()) if boxes else 0


def list_partly_labelled(labelled: Mapping[str, ManifestEntry]) -> list[str]:
    """Return the cases with ignored voxels, which entries of earlier versions do not record.

    Args:
        labelled: case -> entry of the labelled cases.
    """
    return sorted(case for case, entry in labelled.items() if entry.facts.get("ignored", 0) > 0)


def compute_class_facts(image: np.ndarray, locations: Mapping[Any, Any]) -> dict[str, Any]:
    """Return position and intensity of each class.

    Args:
        image: preprocessed (C, z, y, x).
        locations: nnU-Net's ``class_locations``: class -> voxels (n, 4), whose first column is 0.
            Regions and other sets of classes are ignored.

    Returns:
        ``classes``: class, as text -> ``center`` and ``spread`` (mean and standard deviation of
        the voxels' indices along each axis), ``mean`` and ``deviation`` (of each channel's
        intensities). ``few_voxels``: the classes that have too few of them for that.
    """
    classes, few = {}, list[str]()
    for value, voxels in locations.items():
        if not isinstance(value, (int, np.integer)):
            continue
        if len(voxels) < MIN_VOXELS:
            few += [str(int(value))] if len(voxels) else []
            continue
        indices = np.asarray(voxels)[:, 1:]
        intensities = image[:, indices[:, 0], indices[:, 1], indices[:, 2]].astype(np.float64)
        facts = {
            "center": indices.mean(0),
            "spread": indices.std(0),
            "mean": intensities.mean(1),
            "deviation": intensities.std(1),
        }
        classes[str(int(value))] = {k: numbers.round(3).tolist() for k, numbers in facts.items()}
    return {"classes": classes, "few_voxels": few}


def find_lookalike_classes(
    labelled: Iterable[ManifestEntry], dimensions: int
) -> tuple[int, int] | None:
    """Return the first two classes that look alike and lie in a constant order along an axis.

    A mirrored image would show one where the other belongs.

    Args:
        labelled: entries with the facts of :func:`compute_class_facts`.
        dimensions: 2 or 3: the number of last axes, which the training mirrors.

    Returns:
        None if there are no such classes or the facts are missing.
    """
    cases = [entry.facts["classes"] for entry in labelled if "classes" in entry.facts][:MAX_CASES]
    values = sorted({value for classes in cases for value in classes}, key=int)
    if not values:
        return None
    example = next(classes[values[0]] for classes in cases if values[0] in classes)
    absent = {name: [np.nan] * len(numbers) for name, numbers in example.items()}
    facts = {  # (case, class, axis or channel)
        name: np.array(
            [[classes.get(value, absent)[name] for value in values] for classes in cases]
        )
        for name in example
    }
    for pair in combinations(range(len(values)), 2):
        shows_both = ~np.isnan(facts["center"][:, pair, 0]).any(1)
        if shows_both.sum() >= MIN_CASES:
            first, second = (
                {name: fact[shows_both, index] for name, fact in facts.items()} for index in pair
            )
            brightness = _compute_distance(first, second, "mean", "deviation")
            position = _compute_distance(first, second, "center", "spread")[:, -dimensions:]
            in_order = np.maximum((position > APART).mean(0), (position < -APART).mean(0))
            if np.abs(brightness).mean(0).max() < ALIKE and in_order.max() >= IN_ORDER:
                return int(values[pair[0]]), int(values[pair[1]])
    return None


def _compute_distance(
    first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray], mean: str, deviation: str
) -> np.ndarray:
    """Return first minus second (cases, axes or channels), in pooled deviations."""
    pooled = np.sqrt((np.square(first[deviation]) + np.square(second[deviation])) / 2)
    return np.subtract(first[mean], second[mean]) / np.maximum(pooled, 1e-6)


def compute_foreground_slices(labelled: Iterable[ManifestEntry]) -> float:
    """Return the mean "foreground_slices" of the labelled cases, 1 if it is unknown."""
    fractions = [
        entry.facts["foreground_slices"] for entry in labelled if "foreground_slices" in entry.facts
    ]
    return float(np.mean(fractions)) if fractions else 1.0


def compute_intensity_shift(
    labelled: Iterable[ManifestEntry], unlabelled: Iterable[ManifestEntry]
) -> float:
    """Return the mean distance between the average quantiles of two sets, 0 if one is empty.

    As images are normalised, the unit is about one standard deviation of the labelled images.
    """
    profiles = [
        np.array([entry.facts["quantiles"] for entry in entries if "quantiles" in entry.facts])
        for entries in (labelled, unlabelled)
    ]
    if any(len(profile) == 0 for profile in profiles):
        return 0.0
    return float(np.abs(profiles[0].mean(0) - profiles[1].mean(0)).mean())
