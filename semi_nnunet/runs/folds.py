"""The folds of a data set: those there are or will be, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from semi_nnunet.data import patients
from semi_nnunet.data.sampling import pseudo_labelled_cases
from semi_nnunet.runs.folders import ALL, Folders, patients_of
from semi_nnunet.util.errors import Problem
from semi_nnunet.util.files import read_json, write_json


def all_folds(folders: Folders) -> list[str]:
    """The numbers of those that there are or will be; "all" alone where a case cannot be spared."""
    known = (folders.preprocessed / "dataset.json").is_file()
    count = number_of_folds(folders) if known else patients.FOLDS
    return [*map(str, range(count))] or [ALL]


def number_of_folds(folders: Folders) -> int:
    """Count the folds of the split, or of that nnU-Net will make; 0 with a single labelled case."""
    splits = folders.preprocessed / "splits_final.json"
    if splits.is_file():
        return len(read_json(splits))
    description = read_json(folders.preprocessed / "dataset.json")
    pseudo_labelled = pseudo_labelled_cases(folders.preprocessed)
    if patients.KEY not in description:
        labelled = int(description["numTraining"]) - len(pseudo_labelled)
        return patients.number_of_folds(labelled)
    ending, known = description["file_ending"], folders.preprocessed / "gt_segmentations"
    labels = known if known.is_dir() else folders.raw / "labelsTr"
    cases = [path.name.removesuffix(ending) for path in labels.glob(f"*{ending}")]
    patient_of = patients.patient_finder(description)
    return len(patients.make_folds(cases, patient_of, pseudo_labelled))


def fold_problems(folders: Folders, folds: Sequence[str]) -> Iterator[Problem]:
    """Folds that tear patients, or that the split does not have: nnU-Net would make one up."""
    count = number_of_folds(folders)
    for fold in folds:
        if fold not in (ALL, *map(str, range(count))):
            fix = f"choose from {', '.join([*map(str, range(count)), ALL])}"
            yield Problem(f"fold {fold!r}", f"there are {count} folds", fix)
    splits, patient_of = folders.preprocessed / "splits_final.json", patients_of(folders)
    for number, fold in enumerate(read_json(splits) if splits.is_file() else ()):
        split = patients.split_patients(fold, patient_of)
        if split and str(number) in folds:
            what = f"fold {number} trains and validates on {patients.named(split)}"
            yield Problem(str(splits), what, "delete it, folds of whole patients are made instead")


def write_folds(
    folders: Folders, content: dict[str, Any], configurations: Sequence[str], folds: Sequence[str]
) -> None:
    """Write splits_final.json, where nnU-Net's own trainers would write a wrong one.

    Theirs tears patients, and validates on pseudo labels.
    """
    path = folders.preprocessed / "splits_final.json"
    description = read_json(folders.preprocessed / "dataset.json")
    pseudo_labelled = pseudo_labelled_cases(folders.preprocessed)
    theirs_fits = patients.KEY not in description and not pseudo_labelled
    if theirs_fits or path.is_file() or set(folds) <= {ALL}:
        return
    one = PlansManager(content).get_configuration(configurations[0])
    folder = str(folders.preprocessed / one.data_identifier)
    cases = infer_dataset_class(folder).get_identifiers(folder)
    patient_of = patients.patient_finder(description)
    write_json(path, patients.make_folds(cases, patient_of, pseudo_labelled))
