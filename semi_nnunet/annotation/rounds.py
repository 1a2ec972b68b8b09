"""The record of an annotation round, and the folds that new cases join."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from semi_nnunet.annotation.review import ReviewedLabel
from semi_nnunet.raw.folds import Fold, PatientOf, extend_fold, group_by_patient


def describe_round(
    number: int, labels: Sequence[ReviewedLabel], labelled_before: int, models: Sequence[str]
) -> dict[str, Any]:
    """Return the record of a round.

    Args:
        labels: the accepted ones.
        labelled_before: number of labelled cases before the round.
        models: that proposed the labels.
    """
    added = sum(not label.is_correction for label in labels)
    cases = {
        label.name: {
            "correction": label.is_correction,
            "changed_voxels": label.changed_voxels,
            "label": label.digest,
        }
        for label in labels
    }
    return {
        "round": number,
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "models": list(models),
        "labelled_before": labelled_before,
        "labelled_after": labelled_before + added,
        "cases": cases,
    }


def add_to_folds(
    folds: Sequence[Fold], cases: Iterable[str], patient_of: PatientOf, validates: bool
) -> list[Fold]:
    """Return the folds with new labelled cases; the cases that they have stay where they are.

    A case whose patient validates in a fold is not trained on in this fold.

    >>> folds = [{"train": ["a"], "val": ["b", "c"]}, {"train": ["b", "c"], "val": ["a"]}]
    >>> add_to_folds(folds, ["d"], str, validates=True)[1]
    {'train': ['b', 'c'], 'val': ['a', 'd']}

    Args:
        validates: each new patient is validated in the smallest fold; otherwise all new cases are
            only trained on.
    """
    joined = [{side: list(fold[side]) for side in ("train", "val")} for fold in folds]
    for patient, group in group_by_patient(sorted(cases), patient_of).items():
        if validates and (fold := _choose_fold(joined, patient, patient_of)) is not None:
            fold["val"] += group
        joined = [extend_fold(fold, group, patient_of) for fold in joined]
    return joined


def _choose_fold(folds: Sequence[Fold], patient: str, patient_of: PatientOf) -> Fold | None:
    """Return the fold that validates on a patient, or else the smallest that may, or None."""

    def has_patient(fold: Mapping[str, Sequence[str]], side: str) -> bool:
        return any(patient_of(case) == patient for case in fold[side])

    validating = [fold for fold in folds if has_patient(fold, "val")]
    free = [fold for fold in folds if not has_patient(fold, "train")]
    return min(validating or free, key=lambda fold: len(fold["val"]), default=None)
