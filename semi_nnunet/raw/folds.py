r"""Folds of a data set, and the patients that they keep together.

Two frames of a heart or the slices of a scan are nearly the same picture, so all cases of a patient
belong in one fold, on one side of a split, and count as one observation. ``dataset.json`` may hold
a regular expression for the part of a case's identifier that names its patient. It matches from
the start; if it has a group, the group is the patient::

    "patient": "patient[0-9]+"

Then patient001_ED and patient001_ES belong to patient001. Without the entry every case counts as
its own patient.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from semi_nnunet.raw.layout import DATASET_JSON, PSEUDO_LABELLED_FILE, SPLITS_FILE
from semi_nnunet.util.errors import Problem, UserError, raise_if_any
from semi_nnunet.util.files import read_json, read_names, write_json
from semi_nnunet.util.names import list_first

PATIENT_KEY = "patient"  # of dataset.json
MAX_FOLDS = 5
MATCH_S = 10  # for all cases of a data set
REPEAT = re.compile("[*+?{]")
TRY_MATCHES = """
import json, re, sys
expression, *cases = json.load(sys.stdin)
for case in cases:
    re.match(expression, case)
"""

PatientOf = Callable[[str], str]  # case -> its patient
Fold = dict[str, list[str]]  # "train" and "val" -> cases


# ---- patients ----


def build_patient_finder(description: Mapping[str, Any]) -> PatientOf:
    """Return the function that maps a case to its patient.

    >>> patient_of = build_patient_finder({"patient": "patient[0-9]+"})
    >>> patient_of("patient001_ED"), patient_of("volunteer_7")
    ('patient001', 'volunteer_7')

    Args:
        description: dataset.json. A case that its expression does not match is its own patient.

    Raises:
        UserError: the expression is invalid.
    """
    problems = find_patient_expression_problems(description, DATASET_JSON)
    raise_if_any(f"{DATASET_JSON} cannot be used:", problems)
    if PATIENT_KEY not in description:
        return case_as_patient
    return _make_finder(re.compile(description[PATIENT_KEY]))


def _make_finder(pattern: re.Pattern[str]) -> PatientOf:
    return lambda case: match_patient(pattern, case) or case


def match_patient(pattern: re.Pattern[str], case: str) -> str:
    """Return the patient that a pattern finds in the name of a case, or "".

    It is the pattern's group, or the whole match if the group took no part in it.
    """
    match = pattern.match(case)
    if match is None:
        return ""
    return match[0] if match[pattern.groups] is None else match[pattern.groups]


def case_as_patient(case: str) -> str:
    """Return the case as its own patient."""
    return case


def group_by_patient(cases: Iterable[str], patient_of: PatientOf) -> dict[str, list[str]]:
    """Return patient -> its cases, in the order of ``cases``."""
    groups = defaultdict[str, list[str]](list)
    for case in cases:
        groups[patient_of(case)].append(case)
    return dict(groups)


def exclude_patients_of(
    cases: Iterable[str], excluded: Iterable[str], patient_of: PatientOf
) -> list[str]:
    """Return the cases whose patient has no case in ``excluded``."""
    patients = {patient_of(case) for case in excluded}
    return [case for case in cases if patient_of(case) not in patients]


def find_shared_patients(
    first: Iterable[str], second: Iterable[str], patient_of: PatientOf
) -> list[str]:
    """Return the patients with cases in both collections."""
    return sorted({patient_of(case) for case in first} & {patient_of(case) for case in second})


def find_seen_patients(
    learned: Iterable[str],
    training: Iterable[str],
    validation: Iterable[str],
    patient_of: PatientOf,
) -> list[str]:
    """Return the validation patients of a fold from whom a network has learned.

    The fold's own training cases do not count: a user may have put a patient into both parts.

    Args:
        learned: labelled and unlabelled cases that the network has learned from.
        training, validation: cases of the fold now.
    """
    return find_shared_patients({*learned} - {*training}, validation, patient_of)


def find_patient_expression_problems(
    description: Mapping[str, Any], file_name: str
) -> Iterator[Problem]:
    """Yield a problem if the regular expression of dataset.json is invalid."""
    if PATIENT_KEY in description:
        yield from find_expression_problems(
            repr(PATIENT_KEY), description[PATIENT_KEY], "patient[0-9]+", file_name
        )


def find_expression_problems(
    key: str, expression: Any, example: str, file_name: str
) -> Iterator[Problem]:
    """Yield a problem unless a value is a regular expression with one group or none.

    Args:
        key: what the expression belongs to, for the problem.
        expression: any value of a JSON file.
        example: of a good expression.
        file_name: that holds it.
    """
    defect = f"{key} must be a regular expression, such as {example!r}, got {expression!r}"
    try:
        groups = re.compile(expression).groups
    except (TypeError, re.error, OverflowError, RecursionError) as error:
        yield Problem(file_name, f"{defect} ({error})", "correct it")
        return
    if groups > 1:
        defect = f"{key} must have one group or none, got {groups} in {expression!r}"
        yield Problem(file_name, defect, "write the others as (?:...)")


def find_slow_expression(
    key: str, expression: str, cases: Sequence[str], file_name: str
) -> Iterator[Problem]:
    """Yield a problem unless a regular expression is tried on all cases in time."""
    if not matches_in_time(expression, cases):
        defect = f"{key} must match the cases within {MATCH_S} s, {expression!r} does not"
        yield Problem(file_name, defect, "write it without repeats of repeats, such as (a+)+")


def find_patient_problems(
    description: Mapping[str, Any], cases: Mapping[str, Sequence[str]], file_name: str
) -> Iterator[Problem]:
    """Yield cases without a patient, and training cases of patients that are also tested.

    Args:
        description: dataset.json with a valid expression, if any.
        cases: "labelled", "unlabelled" and "test" -> cases.
    """
    if PATIENT_KEY not in description:
        return
    expression = description[PATIENT_KEY]
    pattern = re.compile(expression)
    all_cases = [case for group in cases.values() for case in group]
    if slow := [*find_slow_expression(repr(PATIENT_KEY), expression, all_cases, file_name)]:
        yield from slow
        return
    unmatched = [case for case in all_cases if not match_patient(pattern, case)]
    if unmatched:
        defect = f"{PATIENT_KEY!r} must match every case from its start, {expression!r} does not "
        defect += f"match {list_first(unmatched)}"
        fix = f'correct it, or add "|.+" if these are patients of their own: "{expression}|.+"'
        yield Problem(file_name, defect, fix)
    patient_of = _make_finder(pattern)
    tested = {patient_of(case) for case in cases["test"]}
    for subset in ("labelled", "unlabelled"):
        leaked = [case for case in cases[subset] if patient_of(case) in tested]
        if leaked:
            defect = f"{subset} cases are of patients who are also in imagesTs: "
            fix = "keep all cases of a patient in imagesTs, or none"
            yield Problem(file_name, defect + list_first(leaked), fix)


def matches_in_time(expression: str, cases: Sequence[str]) -> bool:
    """Return whether a regular expression is tried on all cases within :data:`MATCH_S`.

    Repeats next to or within repeats can take years on a short text, and Python cannot be
    interrupted meanwhile, so that they are tried in another process.
    """
    if not REPEAT.search(expression):
        return True
    words = [sys.executable, "-I", "-S", "-c", TRY_MATCHES]
    try:
        subprocess.run(
            words, input=json.dumps([expression, *cases]), text=True, timeout=MATCH_S, check=True,
            capture_output=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return False
    return True


# ---- folds ----


def make_folds(
    cases: Iterable[str], patient_of: PatientOf, pseudo_labelled: Collection[str] = ()
) -> list[Fold]:
    """Make nnU-Net's folds with whole patients.

    Up to five patients get one fold each; a single patient gets none. If every case is its own
    patient, the folds are those of nnU-Net.

    Args:
        pseudo_labelled: cases that a model labelled; they are only trained on.
    """
    patients = group_by_patient(sorted({*cases} - {*pseudo_labelled}), patient_of)
    count = count_folds(len(patients))
    if count == 0:
        return []
    from nnunetv2.utilities.crossval_split import generate_crossval_split  # imports scikit-learn

    folds = [
        {
            side: sorted(case for patient in fold[side] for case in patients[patient])
            for side in fold
        }
        for fold in generate_crossval_split(list(patients), n_splits=count)
    ]
    return [extend_fold(fold, pseudo_labelled, patient_of) for fold in folds]


def extend_fold(
    fold: Mapping[str, Iterable[str]], cases: Iterable[str], patient_of: PatientOf
) -> Fold:
    """Return a fold with more training cases, except those of its validation patients."""
    validation = list(fold["val"])
    added = exclude_patients_of(sorted(cases), validation, patient_of)
    return {"train": [*fold["train"], *added], "val": validation}


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


def count_folds(patients: int) -> int:
    """Return the number of folds that so many labelled patients make."""
    return min(MAX_FOLDS, patients) if patients > 1 else 0


def load_folds(preprocessed: Path) -> list[Fold]:
    """Return the folds in splits_final.json, [] without that file.

    Raises:
        UserError: it is no list of folds with their training and validation cases.
    """
    path = preprocessed / SPLITS_FILE
    if not path.is_file():
        return []
    content, fix = read_json(path), "correct that file, or delete it: folds are made again"
    if not isinstance(content, list):
        raise UserError(f"{path} must be a list of folds, got {content!r:.80}", fix=fix)
    example = '{"train": ["case_1"], "val": ["case_2"]}'
    problems = [
        Problem(f"fold {number}", f"must be like {example}, got {fold!r:.80}", fix)
        for number, fold in enumerate(content)
        if not is_fold(fold)
    ]
    raise_if_any(f"{path} cannot be used:", problems)
    return content


def is_fold(content: Any) -> bool:
    """Return whether content of a JSON file is a fold, which has lists of cases.

    >>> is_fold({"train": ["a"], "val": ["b"]}), is_fold({"train": "a"})
    (True, False)
    """
    sides = [content.get(key) for key in ("train", "val")] if isinstance(content, dict) else [None]
    return all(
        isinstance(cases, list) and all(isinstance(case, str) for case in cases) for cases in sides
    )


def describe_left_out(preprocessed: Path, cases: Iterable[str]) -> str:
    """Return a warning of labelled cases that are in no fold, as those labelled later; or ""."""
    folds = load_folds(preprocessed)
    listed = {case for fold in folds for side in ("train", "val") for case in fold[side]}
    left_out = sorted({*cases} - listed)
    if not folds or not left_out:
        return ""
    path = preprocessed / SPLITS_FILE
    return (
        f"WARNING: {path} leaves out {len(left_out)} labelled cases, which no fold trains or "
        f"validates on: {list_first(left_out)}. Fix: add them, or remove {path} for new folds, and "
        f"train the folds again"
    )


def save_folds(preprocessed: Path, folds: Sequence[Fold]) -> None:
    """Write splits_final.json, atomically: other processes may read it at the same time."""
    write_json(preprocessed / SPLITS_FILE, list(folds))


def read_pseudo_labelled_cases(preprocessed: str | Path) -> set[str]:
    """Return the training cases that a model labelled, listed by ``semi_nnunet pseudo-dataset``."""
    path = Path(preprocessed) / PSEUDO_LABELLED_FILE
    return {*read_names(path)} if path.is_file() else set()


def find_split_patients(fold: Mapping[str, Collection[str]], patient_of: PatientOf) -> list[str]:
    """Return the patients, or cases, in both the training and the validation of a fold."""
    return find_shared_patients(fold["train"], fold["val"], patient_of)


def require_whole_patients(
    path: Path, number: int, fold: Mapping[str, Collection[str]], patient_of: PatientOf
) -> None:
    """Raise a UserError if fold ``number`` of the file ``path`` has :func:`find_split_patients`."""
    if split := find_split_patients(fold, patient_of):
        raise UserError(
            f"fold {number} of {path} trains and validates on the same cases or patients: "
            f"{list_first(split)}",
            fix="delete that file; new folds keep patients together",
        )
