"""The label ceiling: the Dice that the labels themselves keep at the spacing of a network.

Labels are resampled to the spacing and back. No network that sees images of this spacing can do
better than that by much: of retinal vessels 1 to 7 pixels wide, pixels 4.3 times as large leave a
Dice of .71.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch.nn import functional as F

from semi_nnunet.data.declared_labels import declared_classes

LOWEST = 0.95  # of every class, at a spacing that is planned
MAX_CASES = 8
MARGIN = 2  # voxels of the coarser grid around the labels


@dataclass(frozen=True)
class LabelImage:
    """Labels of a case, cut to what is labelled.

    Args:
        labels: integers (z, y, x), in the order of the plans.
        spacing: mm along each axis.
    """

    labels: np.ndarray
    spacing: tuple[float, ...]


class LabelCeiling:
    """Measures how well the labels of a data set survive a spacing.

    Args:
        images: labels of some cases.
        classes: name -> values that belong to the class or region.
    """

    def __init__(self, images: Sequence[LabelImage], classes: Mapping[str, Sequence[int]]):
        self.images, self.classes = images, classes
        self._measured: dict[tuple[float, ...], dict[str, float]] = {}

    def at(self, spacing: Sequence[float]) -> dict[str, float]:
        """The Dice of each class after resampling to ``spacing`` and back, mean over the cases.

        Args:
            spacing: mm along each axis, in the order of the plans; of 2d, of the last two axes.

        Returns:
            Class -> Dice; a class that no case shows is left out.
        """
        key = tuple(spacing)
        if key not in self._measured:
            self._measured[key] = self._measure(key)
        return self._measured[key]

    def is_kept_at(self, spacing: Sequence[float]) -> bool:
        """Whether every class keeps a Dice of :data:`LOWEST`."""
        return min(self.at(spacing).values(), default=1.0) >= LOWEST

    def _measure(self, spacing: tuple[float, ...]) -> dict[str, float]:
        found: dict[str, list[float]] = {name: [] for name in self.classes}
        for image in self.images:
            kept = resample_there_and_back(image, spacing)
            for name, values in self.classes.items():
                before, after = np.isin(image.labels, values), np.isin(kept, values)
                if before.any():
                    overlap = 2 * np.count_nonzero(before & after)
                    size = np.count_nonzero(before) + np.count_nonzero(after)
                    found[name].append(overlap / size)
        return {name: float(np.mean(dice)) for name, dice in found.items() if dice}


def label_ceiling(
    plans: Mapping[str, Any], dataset_json: Mapping[str, Any], preprocessed: Path
) -> LabelCeiling:
    """The label ceiling of up to eight labelled cases, spread over the names.

    Args:
        plans: nnU-Net's plans.
        dataset_json: the data set's description.
        preprocessed: the data set's preprocessed folder, where nnU-Net keeps the labels.
    """
    manager = PlansManager(dict(plans))
    labels = manager.get_label_manager(dict(dataset_json))
    ending = dataset_json["file_ending"]
    paths = sorted((preprocessed / "gt_segmentations").glob(f"*{ending}"))
    chosen = np.unique(np.linspace(0, len(paths) - 1, MAX_CASES).round().astype(int))
    reader = manager.image_reader_writer_class()
    images = [
        read_label_image(reader, paths[index], manager.transpose_forward)
        for index in (chosen if paths else ())
    ]
    classes = declared_classes(dataset_json["labels"])
    unknown = [] if labels.ignore_label is None else [labels.ignore_label]
    return LabelCeiling([crop_to_labels(image, unknown) for image in images], classes)


def read_label_image(reader: Any, path: Path, transpose: Sequence[int]) -> LabelImage:
    """Labels of a file, with the axes in the order of the plans."""
    labels, properties = reader.read_seg(str(path))
    spacing = [float(properties["spacing"][axis]) for axis in transpose]
    return LabelImage(labels[0].transpose(transpose), tuple(spacing))


def crop_to_labels(image: LabelImage, unknown: Sequence[int]) -> LabelImage:
    """The part that is labelled; voxels of unknown label become background."""
    labels = np.where(np.isin(image.labels, unknown), 0, image.labels).astype(np.int16)
    where = np.nonzero(labels)
    if not len(where[0]):
        return LabelImage(labels[:0], image.spacing)
    part = tuple(slice(axis.min(), axis.max() + 1) for axis in where)
    return LabelImage(labels[part], image.spacing)


def resample_there_and_back(image: LabelImage, spacing: Sequence[float]) -> np.ndarray:
    """The labels after linear resampling of each class to a spacing, and back.

    nnU-Net resamples labels, and the probabilities of a network, in the same way.
    """
    axes = len(spacing)
    own = image.spacing[-axes:]
    ratio = [to / of for to, of in zip(spacing, own, strict=True)]
    margin = [int(np.ceil(MARGIN * max(1.0, one))) for one in ratio]
    padded = np.pad(image.labels, [(0, 0)] * (3 - axes) + [(m, m) for m in margin])
    fine = padded.shape[-axes:]
    coarse = [max(1, round(n / one)) for n, one in zip(fine, ratio, strict=True)]
    kept = resample_label_grid(resample_label_grid(padded, coarse), fine)
    inside = tuple(slice(m, n - m) for m, n in zip(margin, fine, strict=True))
    return kept[(slice(None),) * (3 - axes) + inside]


def describe_ceiling(ceiling: Mapping[str, float]) -> str:
    """What a person should know of a label ceiling; "" without labels."""
    if not ceiling:
        return ""
    name = min(ceiling, key=lambda one: ceiling[one])
    words = f"the labels themselves keep a Dice of {ceiling[name]:.3f} ({name}) at this spacing"
    if ceiling[name] >= LOWEST:
        return words
    return f"WARNING: {words}; --spacing sets a finer one"


def resample_label_grid(labels: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Labels (z, y, x) on a grid with other last axes; each voxel gets the most probable class."""
    axes = len(shape)
    if tuple(labels.shape[-axes:]) == tuple(shape):
        return labels
    mode = {2: "bilinear", 3: "trilinear"}[axes]
    best: torch.Tensor | None = None
    kept = torch.zeros(0)
    for value in np.unique(labels):
        share = torch.from_numpy((labels == value).astype(np.float32))
        share = share.unflatten(0, (-1, 1)) if axes == 2 else share[None, None]
        share = F.interpolate(share, tuple(shape), mode=mode, align_corners=False)
        share = share.squeeze(1) if axes == 2 else share[0, 0]
        if best is None:
            best, kept = share, torch.full(share.shape, int(value), dtype=torch.int16)
        else:
            higher = share > best
            best, kept = torch.where(higher, share, best), kept.where(~higher, int(value))
    return kept.numpy()
