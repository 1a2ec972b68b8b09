"""Statistics of preprocessed images, and how far unlabelled images are from labelled ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from semi_nnunet.data.manifest import Entry

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


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
