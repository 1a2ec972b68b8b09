r"""Cases of one patient belong together: in one fold, on one side of a split, as one observation.

Two frames of a heart or the slices of a scan are nearly the same picture. ``dataset.json`` may say
which part of a case's identifier is its patient, as a regular expression that matches from the
start, or as its one group::

    "patient": "patient[0-9]+"

patient001_ED and patient001_ES are then of patient001. Without it every case is a patient.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from semi_nnunet.util.errors import Problem, UserError, raise_if_any

KEY = "patient"  # of dataset.json
FOLDS = 5

PatientOf = Callable[[str], str]  # case -> its patient
Fold = dict[str, list[str]]  # "train" and "val" -> cases


def patient_finder(description: Mapping[str, Any]) -> PatientOf:
    """What tells the patient of a case.

    Args:
        description: dataset.json. A case of which its expression tells no patient is one itself.

    Raises:
        UserError: the expression is none.
    """
    raise_if_any("dataset.json cannot be used:", expression_problems(description, "dataset.json"))
    if KEY not in description:
        return itself
    pattern = re.compile(description[KEY])

    return lambda case: told(pattern, case) or case


def told(pattern: re.Pattern[str], case: str) -> str:
    """The patient that an expression tells: its group, or, where that took no part, all of it."""
    match = pattern.match(case)
    if match is None:
        return ""
    return match[0] if match[pattern.groups] is None else match[pattern.groups]


def itself(case: str) -> str:
    """Every case is a patient."""
    return case


def by_patient(cases: Iterable[str], patient_of: PatientOf) -> dict[str, list[str]]:
    """Patient -> its cases, in the order given."""
    found = defaultdict[str, list[str]](list)
    for case in cases:
        found[patient_of(case)].append(case)
    return dict(found)


def make_folds(
    cases: Iterable[str], patient_of: PatientOf, pseudo_labelled: Collection[str] = ()
) -> list[Fold]:
    """nnU-Net's folds, of whole patients; fewer than five patients get one each, a single one none.

    Args:
        cases: the labelled ones. Where each is a patient, the folds are those of nnU-Net.
        patient_of: see :func:`patient_finder`.
        pseudo_labelled: those of which a model made the labels, for training alone.
    """
    patients = by_patient(sorted({*cases} - {*pseudo_labelled}), patient_of)
    count = number_of_folds(len(patients))
    if count == 0:
        return []
    from nnunetv2.utilities.crossval_split import generate_crossval_split  # imports scikit-learn

    folds = generate_crossval_split(list(patients), n_splits=count)
    of_cases = [
        {
            part: sorted(case for patient in fold[part] for case in patients[patient])
            for part in fold
        }
        for fold in folds
    ]
    return [for_training(fold, pseudo_labelled, patient_of) for fold in of_cases]


def for_training(
    fold: Mapping[str, Iterable[str]], cases: Iterable[str], patient_of: PatientOf
) -> Fold:
    """A fold that trains on more cases, but for those of patients whom it validates on."""
    validation = list(fold["val"])
    added = apart_from(sorted(cases), validation, patient_of)
    return {"train": [*fold["train"], *added], "val": validation}


def number_of_folds(patients: int) -> int:
    """How many folds so many labelled patients make."""
    return min(FOLDS, patients) if patients > 1 else 0


def apart_from(cases: Iterable[str], others: Iterable[str], patient_of: PatientOf) -> list[str]:
    """The cases whose patient has none among the others."""
    seen = {patient_of(case) for case in others}
    return [case for case in cases if patient_of(case) not in seen]


def split_patients(fold: Mapping[str, Collection[str]], patient_of: PatientOf) -> list[str]:
    """Patients with cases in the training and in the validation of a fold.

    None where every case is a patient: nnU-Net warns of cases that are in both.
    """
    return [] if patient_of is itself else shared(fold["train"], fold["val"], patient_of)


def require_whole(
    path: Path, number: int, fold: Mapping[str, Collection[str]], patient_of: PatientOf
) -> None:
    """Raise a UserError if fold ``number`` of the file ``path`` has :func:`split_patients`."""
    if split := split_patients(fold, patient_of):
        raise UserError(
            f"fold {number} of {path} trains and validates on cases of the same patients: "
            f"{named(split)}",
            fix="delete that file, folds of whole patients are made in its place",
        )


def shared(first: Iterable[str], second: Iterable[str], patient_of: PatientOf) -> list[str]:
    """Patients with cases in both."""
    return sorted({patient_of(case) for case in first} & {patient_of(case) for case in second})


def expression_problems(description: Mapping[str, Any], where: str) -> Iterator[Problem]:
    """What is wrong with the expression of dataset.json."""
    if KEY not in description:
        return
    expression = description[KEY]
    what = f"{KEY!r} must be a regular expression, such as 'patient[0-9]+', got {expression!r}"
    try:
        groups = re.compile(expression).groups
    except (TypeError, re.error, OverflowError, RecursionError) as error:
        yield Problem(where, f"{what} ({error})", "correct it")
        return
    if groups > 1:
        what = f"{KEY!r} must have one group, the patient, or none, got {groups} in {expression!r}"
        yield Problem(where, what, "write the others as (?:...)")


def patient_problems(
    description: Mapping[str, Any], cases: Mapping[str, Sequence[str]], where: str
) -> Iterator[Problem]:
    """Cases of which the expression tells no patient, and patients who are tested on, too.

    Args:
        description: dataset.json, whose expression is one.
        cases: "labelled", "unlabelled" and "test" -> cases.
        where: dataset.json, for errors.
    """
    if KEY not in description:
        return
    expression = description[KEY]
    pattern = re.compile(expression)
    unmatched = [case for group in cases.values() for case in group if not told(pattern, case)]
    if unmatched:
        what = f"{KEY!r} must match every case from its start, {expression!r} does not match "
        fix = f'correct it, or add "|.+" if these are patients of their own: "{expression}|.+"'
        yield Problem(where, what + named(unmatched), fix)
    patient_of = patient_finder(description)
    tested = {patient_of(case) for case in cases["test"]}
    for subset in ("labelled", "unlabelled"):
        both = [case for case in cases[subset] if patient_of(case) in tested]
        if both:
            what = f"{subset} cases are of patients who are also in imagesTs: {named(both)}"
            yield Problem(where, what, "keep all cases of a patient in imagesTs, or none")


def named(names: Sequence[str]) -> str:
    """The first of them."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
