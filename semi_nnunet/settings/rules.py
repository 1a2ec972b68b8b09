"""Every planned setting as a pure function: ``rule(properties, values) -> (value, reason)``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Planned = tuple[Any, str]


@dataclass(frozen=True)
class DatasetProperties:
    """What the rules know of a data set and configuration.

    Args:
        labelled_cases: number of cases in imagesTr.
        unlabelled_cases: number of preprocessed cases of imagesUn.
        batch_size: of the nnU-Net plan.
        patch_size: of the nnU-Net plan, in voxels.
        median_shape: median image size after resampling, in voxels, as many axes as the patch.
        intensity_shift: distance between the labelled and unlabelled intensity distributions, in
            standard deviations of the labelled one (0: same); see
            :mod:`semi_nnunet.data.fingerprint`.
        foreground_slices: fraction of the labelled cases' slices that show foreground.
        foreground_classes: number of classes without background, or of regions.
        told_by_place: the names of two classes that look alike and always lie in the same order, if
            there are any.
    """

    labelled_cases: int
    unlabelled_cases: int
    batch_size: int
    patch_size: tuple[int, ...]
    median_shape: tuple[float, ...]
    intensity_shift: float = 0.0
    foreground_slices: float = 1.0
    foreground_classes: int = 1
    told_by_place: tuple[str, str] | None = None


def epochs(properties: DatasetProperties, values: Mapping[str, Any]) -> Planned:
    return 1000, "nnU-Net's default, so that results compare with it"


def steps_per_epoch(properties: DatasetProperties, values: Mapping[str, Any]) -> Planned:
    return 250, "nnU-Net's default"


def validation_steps_per_epoch(properties: DatasetProperties, values: Mapping[str, Any]) -> Planned:
    return 50, "nnU-Net's default"


def total_steps(values: Mapping[str, Any]) -> int:
    """Optimizer steps of the whole training."""
    return int(values["epochs"]) * int(values["steps_per_epoch"])


def labelled_batch_size(properties: DatasetProperties, values: Mapping[str, Any]) -> Planned:
    return properties.batch_size, "batch size of the nnU-Net plan"


def unlabelled_batch_size(properties: DatasetProperties, values: Mapping[str, Any]) -> Planned:
    reason = (
        "as many unlabelled as labelled patches a step (Mean Teacher, FixMatch in segmentation)"
    )
    return values["labelled_batch_size"], reason


def initial_lr(properties: DatasetProperties, values: Mapping[str, Any]) -> Planned:
    if values["optimizer"] == "adam":
        return 1e-4, "the published medical Mean Teacher's with Adam"
    return 1e-2, "nnU-Net's with SGD"


def warm_up_epochs(properties: DatasetProperties, values: Mapping[str, Any]) -> Planned:
    if values["pretrained"] is None:
        return 0, "random weights have nothing to lose"
    return max(1, round(0.05 * int(values["epochs"]))), (
        "5 % of the epochs, in which the rate rises evenly, so that the output layer, which is "
        "random, does not undo what the others know (Wald et al. 2024; poly only)"
    )


def unlabelled_start_steps(properties: DatasetProperties, values: Mapping[str, Any]) -> Planned:
    steps = min(2000, round(0.4 * total_steps(values)))
    return steps, (
        "until then (40 %, at most 2000) the unlabelled terms weigh by how well the least known "
        "class is predicted, then by the mean of the classes; 0: the same weight however bad"
    )


def ramp_up_steps(properties: DatasetProperties, values: Mapping[str, Any]) -> Planned:
    steps = max(1, round(0.4 * total_steps(values)))
    return steps, (
        "40 % of the steps, from the first one on: the teacher must be useful before it is followed"
    )


def every_step(properties: DatasetProperties, values: Mapping[str, Any]) -> Planned:
    return total_steps(values), "the weight grows until the end"


def unlabelled_gradient_limit(properties: DatasetProperties, values: Mapping[str, Any]) -> Planned:
    if values.get("variant", "ours") != "ours" or values.get("fidelity") == "paper":
        return 0.0, "no limit, as published"
    if len(properties.patch_size) == 3:
        return 0.5, (
            "volumes: the norm of the unlabelled gradient is at most half of the supervised one's; "
            "it was two to four times as large, and the labels were fitted too late (LA)"
        )
    return 0.0, "slices: no limit; it was about as large as the supervised one (ACDC)"


def ema_decay(properties: DatasetProperties, values: Mapping[str, Any]) -> Planned:
    horizon = min(1000, max(10, total_steps(values) // 30))
    return 1 - 1 / horizon, (
        f"averages about the last {horizon} steps: 1/30 of the training, at most 1000 (Mean "
        f"Teacher: .99 to .999); a teacher that lags behind does not know what came last"
    )


def mirror(properties: DatasetProperties, values: Mapping[str, Any]) -> Planned:
    if properties.told_by_place is None:
        return True, "nnU-Net's: no classes are known that their place alone tells apart"
    one, other = properties.told_by_place
    return False, (
        f"{one} and {other} are as bright as each other and always lie on the same sides: a "
        f"mirrored image shows the one where the other is (Hippocampus: 3 points)"
    )


def max_rotation_degrees(properties: DatasetProperties, values: Mapping[str, Any]) -> Planned:
    """How far labelled patches are rotated, by every trainer alike, so that baselines match."""
    if values["mirror"]:
        return 180.0, "no limit to nnU-Net's, which are up to 180 in planes that are nearly square"
    return 30.0, (
        "nnU-Net's of volumes: mirroring is off, so orientation matters, and unlabelled patches "
        "are not rotated at all (180: nnU-Net's of planes that are nearly square)"
    )


def unlabelled_foreground_oversampling(
    properties: DatasetProperties, values: Mapping[str, Any]
) -> Planned:
    covered = math.prod(
        min(1.0, patch / max(size, 1))
        for patch, size in zip(properties.patch_size, properties.median_shape, strict=True)
    )
    found = f"a patch covers {covered:.0%} of the median image"
    if len(properties.patch_size) == 2:
        covered *= properties.foreground_slices
        found += f", {properties.foreground_slices:.0%} of the slices show foreground"
    if covered >= 0.5:
        return 0.0, f"{found}: foreground is met anyway"
    return 0.33, (
        f"{found}: look where the labelled cases have foreground, as often as nnU-Net does"
    )


def appearance_strength(properties: DatasetProperties, values: Mapping[str, Any]) -> Planned:
    strength = round(min(2.0, max(1.0, properties.intensity_shift / 0.5)), 2)
    if strength > 1:
        return strength, (
            f"the unlabelled intensities lie {properties.intensity_shift:.2f} sd from the "
            f"labelled: stronger changes bridge the gap"
        )
    return 1.0, "labelled and unlabelled intensities agree: ranges of the Mean Teacher prototype"


def class_wise_threshold(properties: DatasetProperties, values: Mapping[str, Any]) -> Planned:
    if properties.foreground_classes > 1:
        return True, (
            "several classes: lower for those the teacher is less sure of (FreeMatch), so that the "
            "others do not drown them (ACDC)"
        )
    return False, (
        "one class: a lower threshold for it than for background would trust the inner side of its "
        "border more than the outer one, and it would grow (Kvasir-SEG)"
    )
