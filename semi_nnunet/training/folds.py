"""Folds of a training: made of whole patients where there are none yet, and checked before use."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from semi_nnunet.data.patients import PatientOf, by_patient, make_folds, require_whole
from semi_nnunet.data.sampling import pseudo_labelled_cases
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json, write_json

SPLITS_FILE = "splits_final.json"


def require_fold(
    preprocessed: Path, fold: int, cases: Sequence[str], patient_of: PatientOf
) -> None:
    """Make the file of folds where there is none, and check that it has the fold.

    nnU-Net would make up a random split for a fold that the file does not have. The file is written
    here, whole, because one DDP process may read what another writes. Fewer than five patients get
    one fold each.

    Args:
        preprocessed: folder of the data set.
        fold: its number.
        cases: every labelled case.
        patient_of: case -> its patient.

    Raises:
        UserError: there are too few patients for a fold, or the file has no such fold.
    """
    path = preprocessed / SPLITS_FILE
    if not path.exists():
        folds = make_folds(cases, patient_of, pseudo_labelled_cases(preprocessed))
        if not folds:
            raise UserError(
                f"fold {fold} needs a training and a validation patient, found {len(cases)} "
                f"labelled cases of {len(by_patient(cases, patient_of))}",
                fix="train fold 'all'",
            )
        write_json(path, folds)
    count = len(read_json(path))
    if fold >= count:
        raise UserError(
            f"{path} has {count} folds, but fold {fold} was asked for (nnU-Net would split at "
            f"random). Fix: "
            + (f"choose one of 0 to {count - 1}, or 'all'" if count else "train fold 'all'")
        )


def require_usable_split(
    preprocessed: Path,
    fold: int | str,
    split: tuple[Sequence[str], Sequence[str]],
    cases: Collection[str],
    patient_of: PatientOf,
) -> None:
    """Check the training and validation cases of a fold.

    Raises:
        UserError: there are none to train on, some are not preprocessed, or a patient is in both.
    """
    path, (training, validation) = preprocessed / SPLITS_FILE, split
    missing = sorted({*training, *validation} - {*cases})
    if missing or not training:
        named = f"names cases that are not preprocessed: {', '.join(missing)}"
        what = named if missing else "is empty"
        raise UserError(f"fold {fold} of {path} {what}", fix="mend or delete that file")
    if fold != "all":
        whole = {"train": [*training], "val": [*validation]}
        require_whole(path, int(fold), whole, patient_of)
