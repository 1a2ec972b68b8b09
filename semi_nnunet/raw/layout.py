"""Names and places of files: nnU-Net's folders and the files that this package adds to them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw, nnUNet_results
from nnunetv2.utilities.dataset_name_id_conversion import (
    find_candidate_datasets,
    maybe_convert_to_dataset_name,
)

from semi_nnunet.util.errors import Problem, UserError, raise_if_any
from semi_nnunet.util.files import optional_json, read_json
from semi_nnunet.util.names import find_name_defect, list_first
from semi_nnunet.util.provenance import Inputs, find_changed

DATASET_JSON = "dataset.json"
PLANNED_FROM = "semi_planned_from.json"  # the labelled cases that the fingerprint describes
PLANS_JSON = "plans.json"  # in the folder of a model
SUMMARY_JSON = "summary.json"  # nnU-Net's measures of the predictions in the same folder
FINAL_CHECKPOINT = "checkpoint_final.pth"
SETTINGS_JSON = "semi_settings.json"  # in the folder of a fold: what it is trained with
HISTORY_CSV = "semi_history.csv"  # in the folder of a fold: values of every epoch
STAGE_IMAGES = "semi_stage_images.json"  # the same: images predicted for the next stage
FINGERPRINT_FILE = "dataset_fingerprint.json"
SPLITS_FILE = "splits_final.json"
GROUND_TRUTH = "gt_segmentations"  # folder of the labels that nnU-Net validates on
UNLABELLED_IMAGES = "imagesUn"
STOCK_TRAINER = "nnUNetTrainer"  # nnU-Net's own
SUBSETS_FILE = "labelled_subsets.json"  # in a raw data set: published lists of labelled cases
DISTILLED_FILE = "distil.json"  # in a raw data set: the source of its pseudo-labels
PSEUDO_LABELLED_FILE = "semi_pseudo_labelled.json"  # the training cases that a model labelled
SELECTED_FILE = "semi_selected.json"  # the unlabelled cases to train on, unless it is all
CHECKED_FILE = "semi_checked.jsonl"  # reports of the images in which preprocess found no problem
METRICS_FILE = "metrics.csv"  # measures of the predictions in the same folder
LESIONS_FILE = "lesions.csv"  # each lesion of the predictions and references, if asked for
MEASURED_FROM = "semi_measured_from.json"  # the predictions and references that it measures
PREDICTED_FROM = "semi_predicted_from.json"  # the images and the network of predictions
EARLIER_RECORD = "semi_predicted.json"  # the models only, by version 0.3.0 and before
MODEL = "model"  # in that record: its name
NETWORK = "the network"  # in that record; of several folds each has its name after it
TRAINED_FROM = "semi_trained_from.json"  # the data that one of nnU-Net's own trainers learns from
TWINS_FILE = "semi_twins.json"  # groups of training images that are nearly the same
ROUNDS_FILE = "annotation_rounds.json"  # in a data set: the rounds of accepted labels
ROUNDS_FOLDER = ".annotation"  # in a data set: the files of the last round of accepted labels
WRITTEN_FILE = ".semi_written.jsonl"  # labels of a folder as a command wrote them
JOURNAL = "journal.json"  # of a round, in its folder
UNFINISHED_PHASES = ("commit", "undo")  # of a round: some of its files are changed, others not
SKIPPED_FILE = "semi_skipped.json"  # unlabelled cases that preprocess skips, with the reasons


def suggest_new_copy(label: Path) -> str:
    """Return the fix for a damaged label in :data:`GROUND_TRUTH`.

    >>> suggest_new_copy(Path("preprocessed/Dataset042_Liver/gt_segmentations/a.nii.gz"))
    'semi_nnunet preprocess -d Dataset042_Liver copies it again'
    """
    return f"semi_nnunet preprocess -d {label.parent.parent.name} copies it again"


def read_dataset_number(folder: str | Path) -> int:
    """Return the number in the name of a data set's folder.

    >>> read_dataset_number("nnUNet_raw/Dataset042_Pancreas")
    42

    Raises:
        UserError: the name has no number of three digits.
    """
    name = require_dataset_name(Path(folder).name)
    return int(name[7:10])


def require_dataset_name(name: str) -> str:
    """Return a name "DatasetXXX_Name"; nnU-Net reads its number from exactly three digits.

    Raises:
        UserError: it has another form.
    """
    if defect := find_name_defect(name):
        raise UserError(f"the name of a data set {defect}", fix="rename its folder")
    if re.fullmatch(r"Dataset[0-9]{3}_.+", name) is None:
        raise UserError(
            f"a data set must be named Dataset, a number of three digits (001 to 999), _ and a "
            f"name, got {name}",
            fix="rename its folder, for example Dataset042_Pancreas",
        )
    return name


def read_fold(folder: str | Path) -> str | None:
    """Return the fold in the name of a training's folder, or None for a user's copy of one.

    >>> read_fold("fold_0"), read_fold("fold_all"), read_fold("fold_all_old")
    ('0', 'all', None)
    """
    match = re.fullmatch(r"fold_(all|0|[1-9][0-9]*)", Path(folder).name, re.ASCII)
    return None if match is None else match[1]


def find_fold_folders(model: Path) -> dict[str, Path]:
    """Return fold -> its folder in TRAINER__PLANS__CONFIGURATION; users' copies are left out."""
    folders = {read_fold(path): path for path in sorted(model.glob("fold_*"))}
    return {fold: path for fold, path in folders.items() if fold is not None}


def get_unlabelled_folder(preprocessed_dataset: str | Path, data_identifier: str) -> Path:
    """Return the folder of preprocessed unlabelled images of one configuration.

    >>> get_unlabelled_folder("Dataset042_Hearts", "nnUNetPlans_2d").name
    'nnUNetPlans_2d_unlabeled'
    """
    return Path(preprocessed_dataset) / f"{data_identifier}_unlabeled"


def require_paths(*names: str) -> None:
    """Check that nnU-Net's environment variables name folders; create all but the raw one.

    Args:
        names: of "raw", "preprocessed", "results"; all three if none is given.

    Raises:
        UserError: with a problem for each wrong variable.
    """
    paths = {"raw": nnUNet_raw, "preprocessed": nnUNet_preprocessed, "results": nnUNet_results}
    problems = []
    for name in names or paths:
        variable, value = f"nnUNet_{name}", paths[name].get()
        if not value:
            defect, fix = "the environment variable is not set", f"export {variable}=/a/folder"
            problems.append(Problem(variable, defect, fix))
        elif value.startswith("~"):  # a folder of that name would be made
            fix = "write the home folder out, or without quotes, so that the shell does"
            problems.append(Problem(f"{variable}={value}", "must not begin with ~", fix))
        elif Path(value).is_dir():
            raw = nnUNet_raw.get()
            if name == "preprocessed" and raw and Path(raw).exists() and Path(raw).samefile(value):
                defect, fix = "must be another folder than nnUNet_raw", "choose another"
                problems.append(Problem(f"{variable}={value}", defect, fix))
        elif name == "raw" or Path(value).exists():
            fix = "create it or correct the variable"
            problems.append(Problem(f"{variable}={value}", "is no folder", fix))
        else:
            Path(value).mkdir(parents=True, exist_ok=True)
    raise_if_any("nnU-Net's folders are not set up:", problems)


def resolve_dataset_name(name_or_id: str) -> str:
    """Return the full name "DatasetXXX_Name" of a data set given by name or number.

    Raises:
        UserError: no data set or several have that number.
    """
    if name_or_id.startswith("Dataset"):
        return require_dataset_name(name_or_id)
    try:
        number = int(name_or_id)
    except ValueError:
        raise UserError(
            f"a data set is given by its number or its full name, got {name_or_id!r}",
            fix="for example -d 42 or -d Dataset042_Pancreas",
        ) from None
    raise_if_any("There can be no such data set:", find_number_problems("-d", number))
    candidates = [str(name) for name in find_candidate_datasets(number)]
    for name in candidates:  # Dataset0421_X begins like Dataset042_X, and nnU-Net takes it for that
        require_dataset_name(name)
    if len(candidates) != 1:
        result = f"several: {', '.join(candidates)}" if candidates else "none"
        folders = (nnUNet_raw, nnUNet_preprocessed, nnUNet_results)
        searched = ", ".join(f"{folder.env_var_name}={folder.get()}" for folder in folders)
        raise UserError(
            f"exactly one data set must have the number {number}, found {result} (in {searched})",
            fix=f"name the folder Dataset{number:03d}_SOMETHING in nnUNet_raw, or give its name",
        )
    return str(maybe_convert_to_dataset_name(number))


def find_raw_dataset(name_or_id: str) -> Path:
    """Return the raw folder of a data set.

    Raises:
        UserError: it does not exist.
    """
    require_paths("raw")
    folder = Path(nnUNet_raw.require()) / resolve_dataset_name(name_or_id)
    if not folder.is_dir():
        raise UserError(
            f"{folder} does not exist", fix="put the data set there, or correct -d or nnUNet_raw"
        )
    return folder


def find_raw_description(path: Path) -> Path:
    """Return the original in nnUNet_raw of a ``dataset.json`` in nnUNet_preprocessed.

    Any other path is returned as it is.
    """
    folder = path.absolute().parent
    if nnUNet_preprocessed.is_set() and folder.parent == Path(nnUNet_preprocessed.require()):
        return Path(nnUNet_raw.require()) / folder.name / path.name if nnUNet_raw.is_set() else path
    return path


def get_preprocessed_dataset(name_or_id: str) -> Path:
    """Return the preprocessed folder of a data set, which need not exist yet."""
    require_paths("preprocessed")
    return Path(nnUNet_preprocessed.require()) / resolve_dataset_name(name_or_id)


def find_number_problems(option: str, number: int) -> Iterator[Problem]:
    """Yield a problem if no data set can have the number that ``option`` gave."""
    if not 1 <= number <= 999:
        yield Problem(option, f"must be a number from 1 to 999, got {number}", "choose another")


def name_new_dataset(raw: Path, number: int, name: str) -> Path:
    """Return the folder of a new raw data set; write nothing.

    Args:
        raw: nnUNet_raw.

    Raises:
        UserError: number or name is invalid, or another data set has the number.
    """
    problems = [*find_number_problems("--new-id", number)]
    if not name.strip() or "/" in name or "\\" in name:
        defect = f"must be a name without / and \\, got {name!r}"
        problems.append(Problem("--new-name", defect, "choose another"))
    elif unusable := find_name_defect(name):
        problems.append(Problem("--new-name", unusable, "choose another"))
    raise_if_any("There can be no such data set:", problems)
    target = raw / f"Dataset{number:03d}_{name}"
    rivals = [path.name for path in raw.glob(f"Dataset{number:03d}_*") if path != target]
    if rivals:
        raise UserError(
            f"the number {number} is taken by {', '.join(rivals)}", fix="choose another --new-id"
        )
    return target


def was_dataset_made(target: Path, record_file: str, record: Any) -> bool:
    """Return whether the data set ``target`` exists already and was made from the same inputs.

    Args:
        target: folder of the data set.
        record_file: name of the file in it that records the inputs.
        record: the content that the file must have.

    Raises:
        UserError: ``target`` exists and is something else.
    """
    if not target.exists():
        return False
    path = target / record_file
    if path.is_file() and read_json(path) == record:
        return True
    raise UserError(
        f"{target} exists already and was not made by this command from the present data",
        fix="choose another number or name, or remove it",
    )


def require_unchanged_source(record: Path, inputs: Inputs, source: str, fix: str) -> None:
    """Raise a UserError if a data set was made from files that have changed since.

    Args:
        record: of the files, in the data set's folder.
        inputs: the files now.
        source: their name.
    """
    if changed := find_changed(record, inputs):
        raise UserError(
            f"{source} has changed since {record.parent} was made from it: {list_first(changed)}",
            fix=fix,
        )


def read_skipped_cases(preprocessed: Path) -> dict[str, list[str]]:
    """Return the unlabelled cases that preprocessing skipped (bad ones, outliers) -> the reasons.

    No training sees these cases.
    """
    return optional_json(preprocessed / SKIPPED_FILE)


def read_rounds(raw_dataset: Path) -> list[dict[str, Any]]:
    """Return the rounds of accepted labels of a data set, the oldest first.

    Raises:
        UserError: their file is damaged.
    """
    try:
        return list(optional_json(raw_dataset / ROUNDS_FILE).get("rounds", []))
    except UserError as error:
        fix = "restore it from a backup, or remove it: the report then shows later rounds only"
        raise UserError(error.what, fix=fix) from error


def suggest_journal_repair(journal: Path) -> str:
    """Return what to do about the damaged journal of a round of accepted labels."""
    return (
        "restore it from a backup. If the round is complete (its images are in imagesTr and its "
        f"labels in labelsTr), you can remove {journal.parent} instead; semi_nnunet accept --undo "
        "can then no longer take it back"
    )


def find_unfinished_round(raw_dataset: Path) -> Iterator[Problem]:
    """Yield a problem if ``semi_nnunet accept`` was interrupted while it changed the data set."""
    for path in sorted((raw_dataset / ROUNDS_FOLDER).glob(f"round_*/{JOURNAL}")):
        try:
            phase = optional_json(path).get("phase")
        except UserError as error:
            yield Problem(str(path.parent), error.what, suggest_journal_repair(path))
            continue
        if phase in UNFINISHED_PHASES:
            fix = f"semi_nnunet accept -d {raw_dataset.name}, which finishes the round"
            yield Problem(str(path.parent), "accepting labels was interrupted", fix)
