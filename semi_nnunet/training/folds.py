"""Folds of a training: make them of whole patients if there are none, and check them before use."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from semi_nnunet.raw.folds import (
    PatientOf,
    group_by_patient,
    load_folds,
    make_folds,
    read_pseudo_labelled_cases,
    require_whole_patients,
    save_folds,
)
from semi_nnunet.raw.layout import SPLITS_FILE
from semi_nnunet.util.errors import UserError


def require_fold(
    preprocessed: Path, fold: int, cases: Sequence[str], patient_of: PatientOf
) -> None:
    """Raise if the file of folds lacks a fold; write the file if there is none.

    nnU-Net would split at random for a fold that the file does not have. The file is written
    atomically, because one DDP process may read it while another writes it. Fewer than five
    patients get one fold each.
    """
    path = preprocessed / SPLITS_FILE
    if not path.exists():
        folds = make_folds(cases, patient_of, read_pseudo_labelled_cases(preprocessed))
        if not folds:
            raise UserError(
                f"fold {fold} needs a training and a validation patient, found {len(cases)} "
                f"labelled cases of {len(group_by_patient(cases, patient_of))}",
                fix="train fold 'all'",
            )
        save_folds(preprocessed, folds)
    count = len(load_folds(preprocessed))
    if fold >= count:
        raise UserError(
            f"{path} has {count} folds, but fold {fold} was requested (nnU-Net would split at "
            f"random)",
            fix=f"choose one of 0 to {count - 1}, or 'all'" if count else "train fold 'all'",
        )


def require_usable_split(
    preprocessed: Path,
    fold: int | str,
    split: tuple[Sequence[str], Sequence[str]],
    cases: Collection[str],
    patient_of: PatientOf,
) -> None:
    """Raise if the training and validation cases of a fold cannot be used.

    Args:
        split: training and validation cases.
    """
    path, (training, validation) = preprocessed / SPLITS_FILE, split
    missing = sorted({*training, *validation} - {*cases})
    if missing or not training or not validation:
        defect = f"names cases that are not preprocessed: {', '.join(missing)}"
        side = "training" if validation else "validation"
        raise UserError(
            f"fold {fold} of {path} {defect if missing else f'has no {side} case'}",
            fix="correct or delete that file",
        )
    if fold != "all":
        require_whole_patients(
            path, int(fold), {"train": [*training], "val": [*validation]}, patient_of
        )
