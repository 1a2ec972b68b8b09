"""The folds of a data set: how many, whether they are valid, and writing splits_final.json."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from semi_nnunet.raw import folds as patients
from semi_nnunet.raw.description import list_cases
from semi_nnunet.raw.folds import read_pseudo_labelled_cases
from semi_nnunet.raw.layout import DATASET_JSON, SPLITS_FILE
from semi_nnunet.runs.folders import ALL, Folders, load_patient_finder
from semi_nnunet.util.errors import Problem
from semi_nnunet.util.files import read_json
from semi_nnunet.util.names import list_first
from semi_nnunet.verify.twins import join_known_twins, join_twins, read_twin_groups


def list_folds(folders: Folders) -> list[str]:
    """Return the numbers of the folds; ["all"] if a single labelled case leaves none to spare."""
    is_preprocessed = (folders.preprocessed / DATASET_JSON).is_file()
    count = count_dataset_folds(folders) if is_preprocessed else patients.MAX_FOLDS
    return [*map(str, range(count))] or [ALL]


def count_dataset_folds(folders: Folders) -> int:
    """Count the folds of the split, or of the split that nnU-Net will make.

    Returns:
        0 for a single labelled case.
    """
    splits = folders.preprocessed / SPLITS_FILE
    if splits.is_file():
        return len(patients.load_folds(folders.preprocessed))
    description = read_json(folders.preprocessed / DATASET_JSON)
    pseudo_labelled = read_pseudo_labelled_cases(folders.preprocessed)
    has_groups = bool(read_twin_groups(folders.preprocessed))
    if patients.PATIENT_KEY not in description and not has_groups:
        labelled = int(description["numTraining"]) - len(pseudo_labelled)
        return patients.count_folds(labelled)
    ending, references = description["file_ending"], folders.references
    labels = references if references.is_dir() else folders.raw / "labelsTr"
    cases = list_cases(labels, ending)
    patient_of = join_known_twins(patients.build_patient_finder(description), folders.preprocessed)
    return len(patients.make_folds(cases, patient_of, pseudo_labelled))


def find_fold_problems(folders: Folders, folds: Sequence[str]) -> Iterator[Problem]:
    """Yield a problem for every fold that does not exist or splits a patient.

    nnU-Net would silently make up a split for a fold that does not exist.
    """
    numbers = [*map(str, range(count_dataset_folds(folders)))]
    for fold in folds:
        if fold not in (ALL, *numbers):
            fix = f"choose from {', '.join([*numbers, ALL])}"
            yield Problem(f"fold {fold!r}", f"there are {len(numbers)} folds", fix)
    splits, patient_of = folders.preprocessed / SPLITS_FILE, load_patient_finder(folders)
    for number, fold_cases in enumerate(patients.load_folds(folders.preprocessed)):
        split = patients.find_split_patients(fold_cases, patient_of)
        if split and str(number) in folds:
            message = f"fold {number} trains and validates on {list_first(split)}"
            yield Problem(str(splits), message, "delete it; new folds keep patients together")
        elif str(number) in folds and not (fold_cases["train"] and fold_cases["val"]):
            message = f"fold {number} must have training and validation cases, got none of them"
            yield Problem(str(splits), message, "correct or delete it: folds are made again")


def foresee_folds(folders: Folders) -> list[patients.Fold]:
    """Return the folds, or without splits_final.json those that a training would make."""
    if folds := patients.load_folds(folders.preprocessed):
        return folds
    cases = folders.labelled_cases()
    patient_of = join_known_twins(load_patient_finder(folders), folders.preprocessed)
    return patients.make_folds(cases, patient_of, read_pseudo_labelled_cases(folders.preprocessed))


def write_missing_folds(
    folders: Folders, plans: dict[str, Any], configurations: Sequence[str], folds: Sequence[str]
) -> None:
    """Write splits_final.json where nnU-Net's own trainers would write a wrong one.

    Their split separates cases of one patient, and validates on pseudo-labels.
    """
    path = folders.preprocessed / SPLITS_FILE
    description = read_json(folders.preprocessed / DATASET_JSON)
    pseudo_labelled = read_pseudo_labelled_cases(folders.preprocessed)
    groups = read_twin_groups(folders.preprocessed)
    has_patients = patients.PATIENT_KEY in description
    stock_split_fits = not (has_patients or pseudo_labelled or groups)
    if stock_split_fits or path.is_file() or set(folds) <= {ALL}:
        return
    configuration = PlansManager(plans).get_configuration(configurations[0])
    folder = str(folders.preprocessed / configuration.data_identifier)
    cases = infer_dataset_class(folder).get_identifiers(folder)
    patient_of = join_twins(patients.build_patient_finder(description), groups)
    patients.save_folds(
        folders.preprocessed, patients.make_folds(cases, patient_of, pseudo_labelled)
    )
