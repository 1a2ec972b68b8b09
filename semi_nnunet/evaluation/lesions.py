"""Metrics of lesions: which connected components of two masks match, and how many do not.

A lesion is a connected component of one class; voxels that touch at a corner belong together (8
neighbours in 2-D, 26 in 3-D). The rule for empty masks is that of
:mod:`semi_nnunet.evaluation.metrics`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from semi_nnunet.core.components import label_components
from semi_nnunet.evaluation.metrics import UNDEFINED, divide_or_nan
from semi_nnunet.raw.lesion_rules import LesionRule


@dataclass(frozen=True)
class LesionOverlaps:
    """The lesions of a prediction and its reference, and the voxels that they share.

    Args:
        predicted: voxels of each predicted lesion.
        reference: voxels of each reference lesion.
        pairs: int (P, 2), indices of a predicted and a reference lesion that share voxels.
        shared: voxels that each pair shares (P,).
    """

    predicted: np.ndarray
    reference: np.ndarray
    pairs: np.ndarray
    shared: np.ndarray

    @property
    def iou(self) -> np.ndarray:
        """IoU of each pair."""
        return self.shared / (self._sizes - self.shared)

    @property
    def dice(self) -> np.ndarray:
        """Dice of each pair."""
        return 2 * self.shared / self._sizes

    @property
    def _sizes(self) -> np.ndarray:
        predicted, reference = self.pairs.T
        return self.predicted[predicted] + self.reference[reference]


@dataclass(frozen=True)
class LesionMatch:
    """The lesions that match by a rule.

    Args:
        correct: bool, for each predicted lesion.
        detected: bool, for each reference lesion.
        pairs: indices of the pairs that match.
    """

    correct: np.ndarray
    detected: np.ndarray
    pairs: np.ndarray

    @property
    def false_positives(self) -> int:
        """Number of predicted lesions without a match."""
        return int(np.count_nonzero(~self.correct))


def find_lesions(prediction: np.ndarray, reference: np.ndarray) -> LesionOverlaps:
    """Find the lesions of two bool masks (Y, X) or (Z, Y, X), and the pairs that overlap.

    >>> mask = np.array([[1, 1, 0, 0, 1]], dtype=bool)
    >>> lesions = find_lesions(mask, np.array([[0, 1, 1, 0, 0]], dtype=bool))
    >>> lesions.predicted.tolist(), lesions.reference.tolist(), lesions.pairs.tolist()
    ([2, 1], [2], [[0, 0]])
    """
    ours, theirs = label_components(prediction), label_components(reference)
    predicted, truth = (np.bincount(labels.ravel())[1:] for labels in (ours, theirs))
    common = prediction & reference
    codes = (ours[common].astype(np.int64) - 1) * len(truth) + theirs[common] - 1
    pairs, shared = np.unique(codes, return_counts=True)
    indices = np.stack(np.divmod(pairs, max(len(truth), 1)), 1)
    return LesionOverlaps(predicted, truth, indices, shared)


def match_lesions(lesions: LesionOverlaps, rule: LesionRule) -> LesionMatch:
    """Match lesions by a rule.

    With a smallest IoU, pairs are assigned one to one so that the sum of their IoUs is largest.
    """
    candidates = np.arange(len(lesions.pairs))
    if rule.iou is not None:
        candidates = candidates[lesions.iou >= rule.iou]
        candidates = candidates[_assign(lesions.pairs[candidates], lesions.iou[candidates])]
    predicted, reference = lesions.pairs[candidates].T
    correct, detected = (
        np.zeros(len(sizes), bool) for sizes in (lesions.predicted, lesions.reference)
    )
    correct[predicted], detected[reference] = True, True
    return LesionMatch(correct, detected, candidates)


def _assign(pairs: np.ndarray, iou: np.ndarray) -> np.ndarray:
    """Return the indices of the pairs of the best one-to-one assignment."""
    rows, columns = (np.unique(side, return_inverse=True)[1] for side in pairs.T)
    values, index = np.zeros((2, rows.max(initial=-1) + 1, columns.max(initial=-1) + 1))
    values[rows, columns], index[rows, columns] = iou, np.arange(len(pairs))
    chosen = linear_sum_assignment(values, maximize=True)
    return index[chosen][values[chosen] > 0].astype(int)


def measure_lesions(lesions: LesionOverlaps, rules: Sequence[LesionRule]) -> dict[str, float]:
    """Compute all metrics of the lesions of one class in one case.

    Returns:
        Column -> value, in the order of :func:`describe_lesion_columns`.
    """
    metrics = dict[str, float]()
    for rule in rules:
        match = match_lesions(lesions, rule)
        has_lesions, predicts = len(match.detected) > 0, len(match.correct) > 0
        sensitivity = float(match.detected.mean()) if has_lesions else 1.0
        precision = float(match.correct.mean()) if predicts else float(not has_lesions)
        both = sensitivity + precision
        values = {
            "lesion_f1": 2 * sensitivity * precision / both if both else 0.0,
            "lesion_sensitivity": sensitivity,
            "lesion_precision": precision,
        }
        if rule.iou is not None:
            number = len(match.correct) + len(match.detected) - len(match.pairs)
            values["lesion_dice"] = lesions.dice[match.pairs].sum() / number if number else 1.0
        values["lesion_false_positives"] = match.false_positives
        values["healthy_false_positives"] = UNDEFINED if has_lesions else match.false_positives
        metrics |= {f"{name}_{rule.name}": float(value) for name, value in values.items()}
    return metrics


def describe_lesion_columns(rules: Sequence[LesionRule]) -> dict[str, str]:
    """Return the meaning of each column, for readers of the tables."""
    meanings = dict[str, str]()
    for rule in rules:
        matches = "share a voxel"
        if rule.iou is not None:
            matches = f"have an IoU of at least {rule.iou:g}, one to one"
        meanings |= {
            f"lesion_f1_{rule.name}": "harmonic mean of the lesions' sensitivity and precision; "
            f"two lesions match if they {matches}",
            f"lesion_sensitivity_{rule.name}": "fraction of the reference's lesions that match",
            f"lesion_precision_{rule.name}": "fraction of the predicted lesions that match",
        }
        if rule.iou is not None:
            meanings[f"lesion_dice_{rule.name}"] = (
                "mean Dice of matches, where each lesion without a match counts as 0"
            )
        meanings |= {
            f"lesion_false_positives_{rule.name}": "number of predicted lesions without a match",
            f"healthy_false_positives_{rule.name}": "the same, of cases whose reference has no "
            "lesion; null for others",
        }
    return meanings


def pool_lesions(cases: Sequence[LesionOverlaps], rules: Sequence[LesionRule]) -> dict[str, Any]:
    """Return the numbers of lesions of all cases together, for each rule.

    Fractions are null where there is nothing to count.
    """
    healthy = [case for case in cases if not len(case.reference)]
    pooled: dict[str, Any] = {}
    for rule in rules:
        matches = [match_lesions(case, rule) for case in cases]
        detected = np.concatenate([np.zeros(0, bool), *(match.detected for match in matches)])
        correct = np.concatenate([np.zeros(0, bool), *(match.correct for match in matches)])
        false = len(correct) - int(correct.sum())
        healthy_false = [len(case.predicted) for case in healthy]
        pooled[rule.name] = {
            "cases": len(cases),
            "lesions": len(detected),
            "detected": int(detected.sum()),
            "predicted": len(correct),
            "false_positives": false,
            "sensitivity": divide_or_nan(detected.sum(), len(detected)),
            "precision": divide_or_nan(correct.sum(), len(correct)),
            "false_positives_per_case": divide_or_nan(false, len(cases)),
            "healthy_cases": len(healthy),
            "false_positives_per_healthy_case": divide_or_nan(sum(healthy_false), len(healthy)),
            "healthy_cases_without_false_positives": healthy_false.count(0),
        }
    return pooled


def list_lesion_rows(
    lesions: LesionOverlaps, rules: Sequence[LesionRule], voxel: float
) -> list[tuple[Any, ...]]:
    """Return a row for each lesion: mask, number, volume, and whether it matches by each rule.

    Args:
        voxel: volume of a voxel.
    """
    matches = [match_lesions(lesions, rule) for rule in rules]
    sides = {
        "reference": (lesions.reference, [match.detected for match in matches]),
        "prediction": (lesions.predicted, [match.correct for match in matches]),
    }
    return [
        (mask, number + 1, float(f"{size * voxel:.6g}"), *(int(side[number]) for side in matched))
        for mask, (sizes, matched) in sides.items()
        for number, size in enumerate(sizes)
    ]
