"""Which predictions to review first: maps of uncertainty, and the Dice that models expect.

The map of a case is the entropy of each voxel in percent of its maximum. The expected Dice of a
class, 2 sum(p in the label) / (sum(p) + size of the label), is what the labels would reach if the
probabilities p in and next to the foreground were true. They are often too high: if a
cross-validation kept those of its validation cases (``--npz``), a line fitted to the true Dice of
these cases corrects the mean over the classes.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from scipy.ndimage import binary_dilation

from semi_nnunet.core.uncertainty import entropy, max_entropy
from semi_nnunet.deploy.trained import TrainedModel
from semi_nnunet.evaluation.surfaces import find_bounding_box
from semi_nnunet.raw.classes import AnnotatedClasses, get_declared_classes, has_regions
from semi_nnunet.raw.layout import SUMMARY_JSON
from semi_nnunet.runs.folders import ALL, VALIDATION_FOLDER, is_older
from semi_nnunet.util.files import is_filled, optional_json, read_json, write_csv, write_json

REVIEW_FILE = "review.csv"  # among the predictions
MAPS = "uncertainty"  # folder of the maps, among the predictions
PERCENT = 100  # of the largest entropy, the unit of a map
# Margin around the foreground, in voxels of the network; faint probabilities of a whole background
# would add up to much
NEAR_VOXELS = 3
LEAST_CASES = 10  # that a calibration needs


@dataclass(frozen=True)
class Calibration:
    """The line from the expected to the true mean Dice.

    >>> Calibration(slope=0.5, intercept=0.25, cases=20).correct(0.5)
    0.5

    Args:
        slope, intercept: of the line.
        cases: number of validation cases that it was fitted to; 0: it changes nothing.
        found: number of validation cases with probabilities.
    """

    slope: float = 1.0
    intercept: float = 0.0
    cases: int = 0
    found: int = 0

    def correct(self, dice: float) -> float:
        """Return the Dice to predict for an expected one."""
        return min(1.0, max(0.0, self.intercept + self.slope * dice))

    def __str__(self) -> str:
        if self.found and not self.cases:
            return (
                f"the predicted Dice is not calibrated: only {self.found} validation cases have "
                f"probabilities, at least {LEAST_CASES} of different expected Dice are needed"
            )
        if not self.cases:
            return (
                "the predicted Dice is not calibrated: there are no probabilities of validation "
                "cases (semi_nnunet crossval --npz keeps them)"
            )
        return (
            f"the predicted Dice is calibrated on {self.cases} validation cases, by a line of "
            f"least squares"
        )


def count_near_voxels(spacing: Sequence[float], plans: Any, configuration: Any) -> int:
    """Return the width of the margin around the foreground, in voxels of an image.

    It is the mean over the axes (geometric, as voxels may be anisotropic).

    Args:
        spacing: of the image, from nnU-Net's reader.
        plans, configuration: nnU-Net's managers, of the network.
    """
    network = np.array(configuration.spacing, dtype=float)
    image = np.array([spacing[axis] for axis in plans.transpose_forward], dtype=float)
    ratio = float(np.exp(np.log(network / image[-len(network) :]).mean()))
    return max(1, round(NEAR_VOXELS * ratio))


def assess_prediction(
    labels: np.ndarray,
    probabilities: np.ndarray,
    description: Mapping[str, Any],
    near: int = NEAR_VOXELS,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the map of uncertainty in percent (*spatial), and the facts for the review.

    Args:
        labels: predicted, (Z, Y, X).
        probabilities: (C, Z, Y, X) float32.
        description: content of dataset.json.
        near: see :func:`count_near_voxels`.

    Returns:
        The map, and "expected_dice": class -> Dice, None if the class is not predicted; "slice":
        number of the slice with the most voxels above half of the largest entropy, from 1.
    """
    exclusive = not has_regions(description["labels"])
    percent = np.empty(labels.shape, np.uint8)
    largest = max_entropy(len(probabilities), exclusive)
    for z in range(len(labels)):  # the entropy of a whole image would need much memory
        nats = entropy(torch.from_numpy(probabilities[:, z])[None], exclusive)[0, 0]
        percent[z] = (PERCENT * nats / largest).clamp(0, PERCENT).round().byte().numpy()
    expected = expect_dice(labels, probabilities, description["labels"], near)
    unsure = np.count_nonzero(percent > PERCENT // 2, axis=(1, 2))
    return percent, {"expected_dice": expected, "slice": int(unsure.argmax()) + 1}


def expect_dice(
    labels: np.ndarray,
    probabilities: np.ndarray,
    declared: Mapping[str, Any],
    near: int = NEAR_VOXELS,
) -> dict[str, float | None]:
    """Return class or region -> expected Dice; None if it is not predicted.

    >>> half = np.full((2, 1, 1, 2), 0.5)
    >>> round(expect_dice(np.array([[[0, 1]]]), half, {"background": 0, "organ": 1})["organ"], 3)
    0.5

    Args:
        labels: (Z, Y, X).
        probabilities: (C, Z, Y, X).
        declared: "labels" of dataset.json.
        near: see :func:`count_near_voxels`.
    """
    classes = get_declared_classes(declared)
    is_region, expected = has_regions(declared), dict[str, float | None](dict.fromkeys(classes))
    if not labels.any():
        return expected
    box = tuple(
        slice(max(0, side.start - near), side.stop + near) for side in find_bounding_box(labels > 0)
    )
    whole = (slice(None), *box)
    labels, probabilities = labels[box], probabilities[whole]
    counts = binary_dilation(labels > 0, iterations=near)
    for place, (name, values) in enumerate(classes.items()):
        p, mask = probabilities[place if is_region else values[0]], np.isin(labels, values)
        if size := int(np.count_nonzero(mask)):
            total = float(p[counts].sum(dtype=np.float64)) + size
            expected[name] = 2 * float(p[mask].sum(dtype=np.float64)) / total
    return expected


def average_expected(expected: Mapping[str, float | None]) -> float:
    """Return the mean over the predicted classes; NaN without any."""
    values = [dice for dice in expected.values() if dice is not None]
    return sum(values) / len(values) if values else math.nan


# ---- calibration ----


def calibrate_expected_dice(model: TrainedModel, reader: Any) -> Calibration:
    """Fit the line on the validation cases of the model's folds that have probabilities.

    Args:
        reader: nnU-Net's, of the predicted files.
    """
    pairs = [pair for fold in model.folds for pair in _list_validated(model, fold, reader)]
    expected, true = np.array(pairs).reshape(-1, 2).T
    if len(pairs) < LEAST_CASES or np.ptp(expected) == 0:
        return Calibration(found=len(pairs))
    slope, intercept = np.polyfit(expected, true, 1)
    if slope <= 0:  # the expected Dice says nothing about the true one
        slope, intercept = 0.0, float(true.mean())
    return Calibration(float(slope), float(intercept), len(pairs), len(pairs))


def _list_validated(model: TrainedModel, fold: str, reader: Any) -> Iterator[tuple[float, float]]:
    """Yield the expected and the true mean Dice of validation cases."""
    folder = model.folder / f"fold_{fold}" / VALIDATION_FOLDER
    if fold == ALL or is_older(folder / SUMMARY_JSON, model.checkpoints[fold]):
        return  # fold "all" validates its training cases; or it is of another network
    declared, ending = model.dataset_json["labels"], model.dataset_json["file_ending"]
    annotated, plans = AnnotatedClasses.of(model.dataset_json), PlansManager(model.plans)
    configuration = plans.get_configuration(model.configuration)
    for entry in optional_json(folder / SUMMARY_JSON).get("metric_per_case", ()):
        case = Path(entry["prediction_file"]).name.removesuffix(ending)
        files = folder / f"{case}{ending}", folder / f"{case}.npz"
        if not all(map(is_filled, files)):
            continue
        segmentation, properties = reader.read_seg(str(files[0]))
        labels = np.asarray(segmentation[0])
        near = count_near_voxels(properties["spacing"], plans, configuration)
        with np.load(files[1]) as arrays:
            probabilities = arrays["probabilities"]
        true = [values["Dice"] for values in entry["metrics"].values()]
        true = [dice for dice in true if dice is not None and not math.isnan(dice)]
        expected = expect_dice(labels, probabilities, declared, near)
        names = annotated.names(case) if annotated else expected
        mean = average_expected({name: expected[name] for name in names})
        if true and not math.isnan(mean):
            yield mean, sum(true) / len(true)


# ---- files ----


def find_map(folder: Path, case: str, ending: str) -> Path:
    """Return the place of the map of a case, existing or not."""
    return folder / MAPS / f"{case}{ending}"


def find_facts(folder: Path, case: str) -> Path:
    """Return the place of the facts of a case, existing or not."""
    return folder / MAPS / f"{case}.json"


def is_reviewed(folder: Path, case: str, ending: str) -> bool:
    """Return whether a case has its map and its facts."""
    return is_filled(find_map(folder, case, ending)) and is_filled(find_facts(folder, case))


def remove_reviews(folder: Path, cases: Collection[str], ending: str) -> None:
    """Remove the reviews of earlier predictions of these cases, and the list of all."""
    for case in cases:
        find_map(folder, case, ending).unlink(missing_ok=True)
        find_facts(folder, case).unlink(missing_ok=True)
    if cases:
        (folder / REVIEW_FILE).unlink(missing_ok=True)


def write_facts(folder: Path, case: str, facts: Mapping[str, Any]) -> None:
    """Write the facts of a case, after its map."""
    write_json(find_facts(folder, case), facts)


def write_review(
    folder: Path, cases: Iterable[str], description: Mapping[str, Any], calibration: Calibration
) -> Path:
    """Write review.csv, the worst prediction first, and return its path.

    Args:
        folder: of the predictions.
        cases: those without facts are left out.
        description: content of dataset.json.
    """
    ending, classes = description["file_ending"], [*get_declared_classes(description["labels"])]
    rows = []
    for case in cases:
        if not is_reviewed(folder, case, ending):
            continue
        facts = read_json(find_facts(folder, case))
        expected = facts["expected_dice"]
        mean, values = average_expected(expected), [expected[name] for name in classes]
        rows.append(
            [
                case, "" if math.isnan(mean) else f"{calibration.correct(mean):.4f}",
                _describe_doubt(expected, facts["slice"]), f"{case}{ending}",
                find_map(folder, case, ending).relative_to(folder).as_posix(),
                *("" if value is None else f"{1 - value:.4f}" for value in values),
            ]
        )  # fmt: skip
    rows.sort(key=lambda row: (float(row[1] or -1), row[0]))
    header = ["case", "predicted_dice", "reason", "label", "map"]
    header += [f"uncertainty_{name}" for name in classes]
    path = folder / REVIEW_FILE
    write_csv(path, [header, *rows])
    return path


def _describe_doubt(expected: Mapping[str, float | None], number: int) -> str:
    """Return why a case should be looked at, in a sentence."""
    known = {name: dice for name, dice in expected.items() if dice is not None}
    if not known:
        return "Nothing is predicted."
    absent = [name for name, dice in expected.items() if dice is None]
    worst = min(known, key=known.__getitem__)
    reason = f"{worst} is least certain, slice {number} most uncertain"
    return f"{reason}; {', '.join(absent)} not predicted." if absent else f"{reason}."
