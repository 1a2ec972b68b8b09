"""The label ceiling: the Dice that the labels themselves keep at the spacing of a network.

Labels are resampled to the spacing and back. No network that sees images of this spacing can do
much better: for retinal vessels 1 to 7 pixels wide, pixels 4.3 times as large leave a Dice of .71.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from scipy import ndimage
from torch.nn import functional as F

from semi_nnunet.raw.classes import get_declared_classes
from semi_nnunet.raw.description import list_cases
from semi_nnunet.raw.layout import GROUND_TRUTH, suggest_new_copy
from semi_nnunet.raw.readers import BrokenFileError, read_with_nnunet
from semi_nnunet.util.errors import UserError

MIN_CEILING = 0.95  # of every class, at a spacing that is planned
MAX_CASES = 8
MARGIN = 2  # voxels of the coarser grid around the labels
LEAST_AROUND = 20  # voxels around sparse foreground in which annotated background is looked for


@dataclass(frozen=True)
class LabelImage:
    """Labels of a case, cropped to the foreground.

    Args:
        labels: integers (z, y, x), in the order of the plans.
        spacing: mm along each axis.
    """

    labels: np.ndarray
    spacing: tuple[float, ...]


class LabelCeiling:
    """Measures how well the labels of a data set survive a spacing.

    >>> image = LabelImage(np.ones((4, 8, 8), int), (1.0, 1.0, 1.0))
    >>> LabelCeiling([image], {"organ": [1]}).at([1.0, 1.0, 1.0])
    {'organ': 1.0}

    Args:
        images: labels of some cases.
        classes: name -> label values of the class or region.
    """

    def __init__(self, images: Sequence[LabelImage], classes: Mapping[str, Sequence[int]]):
        self.images, self.classes = images, classes
        self._measured: dict[tuple[float, ...], dict[str, float]] = {}

    def at(self, spacing: Sequence[float]) -> dict[str, float]:
        """Return the mean Dice of each class over the cases, after resampling there and back.

        Args:
            spacing: mm along each axis, in the order of the plans; for 2d, of the last two axes.

        Returns:
            Class -> Dice, without classes that no case contains.
        """
        key = tuple(spacing)
        if key not in self._measured:
            self._measured[key] = self._measure(key)
        return self._measured[key]

    def is_kept_at(self, spacing: Sequence[float]) -> bool:
        """Return whether every class keeps a Dice of :data:`MIN_CEILING`."""
        return min(self.at(spacing).values(), default=1.0) >= MIN_CEILING

    def _measure(self, spacing: tuple[float, ...]) -> dict[str, float]:
        dice: dict[str, list[float]] = {name: [] for name in self.classes}
        for image in self.images:
            resampled = resample_there_and_back(image, spacing)
            for name, values in self.classes.items():
                original, result = np.isin(image.labels, values), np.isin(resampled, values)
                if original.any():
                    overlap = 2 * np.count_nonzero(original & result)
                    size = np.count_nonzero(original) + np.count_nonzero(result)
                    dice[name].append(overlap / size)
        return {name: float(np.mean(values)) for name, values in dice.items() if values}


def load_label_ceiling(
    plans: Mapping[str, Any], dataset_json: Mapping[str, Any], preprocessed: Path
) -> LabelCeiling:
    """Load the labels of up to eight cases, evenly spaced in the sorted list of cases.

    Args:
        plans: nnU-Net's plans.
        dataset_json: the data set's description.
        preprocessed: the data set's preprocessed folder, where nnU-Net keeps the labels.

    Raises:
        UserError: a label cannot be read.
    """
    manager = PlansManager(dict(plans))
    labels = manager.get_label_manager(dict(dataset_json))
    ending = dataset_json["file_ending"]
    folder = preprocessed / GROUND_TRUTH
    paths = [folder / f"{case}{ending}" for case in list_cases(folder, ending)]
    indices = np.unique(np.linspace(0, len(paths) - 1, MAX_CASES).round().astype(int))
    reader = manager.image_reader_writer_class
    images = [
        read_label_image(reader, paths[index], manager.transpose_forward)
        for index in (indices if paths else ())
    ]
    classes = get_declared_classes(dataset_json["labels"])
    ignored = [] if labels.ignore_label is None else [labels.ignore_label]
    return LabelCeiling([crop_to_labels(image, ignored) for image in images], classes)


def read_label_image(reader: type[Any], path: Path, transpose: Sequence[int]) -> LabelImage:
    """Read the labels of a file, with the axes in the order of the plans."""
    try:
        labels, geometry, _ = read_with_nnunet(str(path), reader, is_label=True)
    except BrokenFileError as error:
        raise UserError(f"{path} {error}", fix=suggest_new_copy(path)) from error
    spacing = [geometry.spacing[axis] for axis in transpose]
    return LabelImage(labels[0].transpose(transpose), tuple(spacing))


def crop_to_labels(image: LabelImage, ignored: Sequence[int]) -> LabelImage:
    """Crop to the foreground; ignored voxels get the label of the nearest annotated voxel.

    Scribbles are thinner than what they annotate: without this, they would ask for fine images. The
    annotated background around the foreground bounds it. Without foreground, a voxel of background
    is left.
    """
    annotated = np.isin(image.labels, ignored, invert=True)
    labels = np.where(annotated, image.labels, 0).astype(np.int16)
    if not labels.any():
        return LabelImage(labels[:1, :1, :1], image.spacing)
    if not annotated.all():
        around = find_box(labels, image.spacing, grows=True)
        labels, annotated = labels[around], annotated[around]
        nearest = ndimage.distance_transform_edt(
            ~annotated, image.spacing, return_distances=False, return_indices=True
        )
        labels = labels[tuple(nearest)]
    return LabelImage(labels[find_box(labels, image.spacing)], image.spacing)


def find_box(
    labels: np.ndarray, spacing: Sequence[float], grows: bool = False
) -> tuple[slice, ...]:
    """Return the box of the foreground, perhaps with its largest extent (mm) on all sides."""
    bounds = [(int(axis.min()), int(axis.max()) + 1) for axis in np.nonzero(labels)]
    extents = [(end - start) * mm for (start, end), mm in zip(bounds, spacing, strict=True)]
    around = max(max(extents), LEAST_AROUND * max(spacing)) if grows else 0.0
    margins = [int(np.ceil(around / mm)) for mm in spacing]
    return tuple(
        slice(max(0, start - margin), end + margin)
        for (start, end), margin in zip(bounds, margins, strict=True)
    )


def resample_there_and_back(image: LabelImage, spacing: Sequence[float]) -> np.ndarray:
    """Resample the labels of each class linearly to a spacing, and back.

    nnU-Net resamples labels, and the probabilities of a network, in the same way.
    """
    axes = len(spacing)
    ratios = [new / old for new, old in zip(spacing, image.spacing[-axes:], strict=True)]
    margin = [int(np.ceil(MARGIN * max(1.0, ratio))) for ratio in ratios]
    padded = np.pad(image.labels, [(0, 0)] * (3 - axes) + [(m, m) for m in margin])
    fine = padded.shape[-axes:]
    coarse = [max(1, round(edge / ratio)) for edge, ratio in zip(fine, ratios, strict=True)]
    resampled = resample_label_grid(resample_label_grid(padded, coarse), fine)
    inside = tuple(slice(m, edge - m) for m, edge in zip(margin, fine, strict=True))
    return resampled[(slice(None),) * (3 - axes) + inside]


def describe_ceiling(ceiling: Mapping[str, float]) -> str:
    """Describe the class with the lowest label ceiling; "" without labels.

    >>> describe_ceiling({"liver": 0.99, "spleen": 0.96})
    'the labels themselves keep a Dice of 0.960 (spleen) at this spacing'
    """
    if not ceiling:
        return ""
    name = min(ceiling, key=lambda name: ceiling[name])
    words = f"the labels themselves keep a Dice of {ceiling[name]:.3f} ({name}) at this spacing"
    if ceiling[name] >= MIN_CEILING:
        return words
    return f"WARNING: {words}; --spacing sets a finer one"


def resample_label_grid(labels: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Resample labels (z, y, x) to other last axes; each voxel gets the most probable class."""
    axes = len(shape)
    if tuple(labels.shape[-axes:]) == tuple(shape):
        return labels
    mode = {2: "bilinear", 3: "trilinear"}[axes]
    best: torch.Tensor | None = None
    result = torch.zeros(0)
    for value in np.unique(labels):
        share = torch.from_numpy((labels == value).astype(np.float32))
        share = share.unflatten(0, (-1, 1)) if axes == 2 else share[None, None]
        share = F.interpolate(share, tuple(shape), mode=mode, align_corners=False)
        share = share.squeeze(1) if axes == 2 else share[0, 0]
        if best is None:
            best, result = share, torch.full(share.shape, int(value), dtype=torch.int16)
        else:
            higher = share > best
            best, result = torch.where(higher, share, best), result.where(~higher, int(value))
    return result.numpy()
