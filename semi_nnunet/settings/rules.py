"""The rules of planned settings, as functions: ``rule(properties, values) -> (value, reason)``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Planned = tuple[Any, str]
POOL = "pool"  # value of pretrained: the weights of SemiPretrainTrainer
LEAST_SHARED = 4  # patches of a batch whose half is unlabelled: nnU-Net's smallest batch is 2


@dataclass(frozen=True)
class DatasetProperties:
    """The properties of a data set and configuration that the rules depend on.

    >>> properties = DatasetProperties(20, 200, 2, (80, 160, 160), (120.0, 320.0, 320.0))
    >>> labelled_batch_size(properties, {})
    (2, 'batch size of the nnU-Net plan')

    Args:
        labelled_cases: number of cases in imagesTr.
        unlabelled_cases: number of preprocessed cases of imagesUn.
        batch_size: of the nnU-Net plan.
        patch_size: of the nnU-Net plan, in voxels.
        median_shape: median image size after resampling, in voxels, as many axes as the patch.
        foreground_slices: fraction of the labelled cases' slices that show foreground.
        foreground_classes: number of classes without background, or of regions.
        lookalike_classes: names of two classes that look alike and always lie in the same order,
            or None.
        partly_labelled_cases: number of labelled cases with ignored voxels.
    """

    labelled_cases: int
    unlabelled_cases: int
    batch_size: int
    patch_size: tuple[int, ...]
    median_shape: tuple[float, ...]
    foreground_slices: float = 1.0
    foreground_classes: int = 1
    lookalike_classes: tuple[str, str] | None = None
    partly_labelled_cases: int = 0


def epochs(properties: DatasetProperties, values: Mapping[str, Any]) -> Planned:
    return 1000, "nnU-Net's default, so that results are comparable"


def steps_per_epoch(properties: DatasetProperties, values: Mapping[str, Any]) -> Planned:
    return 250, "nnU-Net's default"


def validation_steps_per_epoch(properties: DatasetProperties, values: Mapping[str, Any]) -> Planned:
    return 50, "nnU-Net's default"


def total_steps(values: Mapping[str, Any]) -> int:
    """Return the optimizer steps of the whole training."""
    return int(values["epochs"]) * int(values["steps_per_epoch"])


def labelled_batch_size(properties: DatasetProperties, values: Mapping[str, Any]) -> Planned:
    return properties.batch_size, "batch size of the nnU-Net plan"


def half_of_batch(properties: DatasetProperties, values: Mapping[str, Any]) -> Planned:
    """Plan ``labelled_batch_size`` of a method whose steps share nnU-Net's batch."""
    if values.get("variant", "ours") != "ours" or properties.batch_size < LEAST_SHARED:
        return labelled_batch_size(properties, values)
    return properties.batch_size // 2, (
        "half of the batch of the nnU-Net plan; the other half is unlabelled, so that a step takes "
        "little longer than nnU-Net's"
    )


def shares_batch(properties: DatasetProperties, values: Mapping[str, Any]) -> bool:
    """Return whether labelled and unlabelled patches together are no more than nnU-Net's batch."""
    patches = int(values["labelled_batch_size"]) + int(values["unlabelled_batch_size"])
    return patches <= properties.batch_size


def unlabelled_batch_size(properties: DatasetProperties, values: Mapping[str, Any]) -> Planned:
    return values["labelled_batch_size"], (
        "as many unlabelled as labelled patches in each step (Mean Teacher, FixMatch in "
        "segmentation)"
    )


def initial_lr(properties: DatasetProperties, values: Mapping[str, Any]) -> Planned:
    if values["optimizer"] == "adam":
        return 1e-4, "that of the published medical Mean Teacher with Adam"
    if values.get("pretrained") not in (None, POOL):
        return 1e-3, "that of nnU-Net's fine-tuning (PretrainedTrainer), a tenth of its usual rate"
    return 1e-2, "nnU-Net's with SGD"


def warm_up_epochs(properties: DatasetProperties, values: Mapping[str, Any]) -> Planned:
    if values.get("continue_from") is not None:
        return max(1, round(0.02 * int(values["epochs"]))), (
            "2 % of the epochs, with a linearly increasing rate, as the new optimizer has no "
            "momentum yet (poly only)"
        )
    if values["pretrained"] is None:
        return 0, "no warm-up: training starts from random weights"
    return max(1, round(0.05 * int(values["epochs"]))), (
        "5 % of the epochs, with a linearly increasing rate, so that the random output layer does "
        "not spoil the pre-trained weights (Wald et al. 2024; poly only)"
    )


def unlabelled_start_steps(properties: DatasetProperties, values: Mapping[str, Any]) -> Planned:
    steps = min(2000, round(0.4 * total_steps(values)))
    return steps, (
        "40 % of the steps, at most 2000: until then the weight of unlabelled images depends on "
        "the worst class, afterwards on the mean over classes (see follow_reliability); 0: the "
        "weight does not depend on how good the network is"
    )


def ramp_up_steps(properties: DatasetProperties, values: Mapping[str, Any]) -> Planned:
    steps = max(1, round(0.4 * total_steps(values)))
    return steps, (
        "40 % of the steps, from the first one: the teacher must be useful before it is followed"
    )


def every_step(properties: DatasetProperties, values: Mapping[str, Any]) -> Planned:
    return total_steps(values), "the weight grows until the last step"


def unlabelled_gradient_limit(properties: DatasetProperties, values: Mapping[str, Any]) -> Planned:
    if values.get("variant", "ours") != "ours" or values.get("fidelity") == "paper":
        return 0.0, "no limit, as published"
    if len(properties.patch_size) == 3:
        return 0.5, (
            "volumes: the norm of the unlabelled gradient is at most half that of the supervised "
            "one; it was two to four times as large, and the labels were fitted too late (LA)"
        )
    return (
        0.0,
        "slices: no limit; the unlabelled gradient was as large as the supervised one (ACDC)",
    )


def ema_decay(properties: DatasetProperties, values: Mapping[str, Any]) -> Planned:
    horizon = min(1000, max(10, total_steps(values) // 30))
    return 1 - 1 / horizon, (
        f"averages about the last {horizon} steps: 1/30 of the training, at most 1000 (Mean "
        f"Teacher: .99 to .999); a longer average would lag behind the student"
    )


def mirror(properties: DatasetProperties, values: Mapping[str, Any]) -> Planned:
    if properties.lookalike_classes is None:
        return True, "nnU-Net's; no two classes differ only in their position"
    first, second = properties.lookalike_classes
    return False, (
        f"{first} and {second} are equally bright and always lie on the same sides, so that "
        f"mirroring confuses them (Hippocampus: 3 points)"
    )


def max_rotation_degrees(properties: DatasetProperties, values: Mapping[str, Any]) -> Planned:
    """Plan the largest rotation of labelled patches, the same for every trainer."""
    if values["mirror"]:
        return 180.0, "nnU-Net's: up to 180 in planes that are nearly square"
    return 30.0, (
        "orientation matters, as mirroring is off: nnU-Net's for volumes, also in planes that are "
        "nearly square (nnU-Net: 180); unlabelled patches are not rotated at all"
    )


def unlabelled_foreground_oversampling(
    properties: DatasetProperties, values: Mapping[str, Any]
) -> Planned:
    covered = math.prod(
        min(1.0, patch / max(size, 1))
        for patch, size in zip(properties.patch_size, properties.median_shape, strict=True)
    )
    coverage = f"a patch covers {covered:.0%} of the median image"
    if len(properties.patch_size) == 2 and properties.foreground_slices < 1:
        covered *= properties.foreground_slices
        coverage += f", {properties.foreground_slices:.0%} of the slices show foreground"
    if covered >= 0.5:
        return 0.0, f"{coverage}: patches show foreground anyway"
    return 0.33, (
        f"{coverage}: a third of the patches, as in nnU-Net, is drawn where labelled cases have "
        f"foreground"
    )


def unlabelled_from_ignored(properties: DatasetProperties, values: Mapping[str, Any]) -> Planned:
    if not properties.partly_labelled_cases:
        return False, "no labelled case has ignored voxels (nnU-Net's ignore label)"
    return True, (
        f"{properties.partly_labelled_cases} labelled cases have ignored voxels; as voxels without "
        f"a label they join those of the unlabelled images"
    )


def class_wise_threshold(properties: DatasetProperties, values: Mapping[str, Any]) -> Planned:
    if properties.foreground_classes > 1:
        return True, (
            "several classes: lower for classes with less confident predictions (FreeMatch), so "
            "that confident classes do not dominate (ACDC)"
        )
    return False, (
        "one class: a lower threshold for it than for the background would use more pseudo labels "
        "inside its border than outside, and the class would grow (Kvasir-SEG)"
    )
