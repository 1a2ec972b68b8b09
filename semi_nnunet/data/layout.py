"""Where things are: the folders that this package adds to nnU-Net's."""

from __future__ import annotations

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

UNLABELLED_IMAGES = "imagesUn"
STOCK_TRAINER = "nnUNetTrainer"  # nnU-Net's own
SUBSETS_FILE = "labelled_subsets.json"  # of a raw data set: published lists, by number of cases
DISTILLED_FILE = "distil.json"  # of a raw data set: where its pseudo labels come from
PSEUDO_LABELLED_FILE = "semi_pseudo_labelled.json"  # training cases whose labels are a model's
SELECTED_FILE = "semi_selected.json"  # the unlabelled cases to train on, where not all
CHECKED_FILE = "semi_checked.jsonl"  # what preprocess found in images that are fine
METRICS_FILE = "metrics.csv"  # what was measured of the predictions beside it
SKIPPED_FILE = "semi_skipped.json"  # unlabelled cases that preprocess set aside, with the reasons


def unlabelled_folder(preprocessed_dataset: str | Path, data_identifier: str) -> Path:
    """Preprocessed unlabelled images of one configuration, without segmentations."""
    return Path(preprocessed_dataset) / f"{data_identifier}_unlabeled"


def manifest_file(case_folder: str | Path) -> Path:
    """The list of finished cases of a preprocessed folder, beside it."""
    folder = Path(case_folder)
    return folder.with_name(folder.name + ".manifest.jsonl")


def shards_folder(case_folder: str | Path) -> Path:
    """Lists, logs and locks of the processes that share the work on a preprocessed folder."""
    folder = Path(case_folder)
    return folder.with_name(folder.name + ".parts")


def require_paths(*names: str) -> None:
    """Check that nnU-Net's environment variables are set and are folders; creates all but raw.

    Args:
        names: of "raw", "preprocessed", "results"; none given means all three.

    Raises:
        UserError: naming every one that is not.
    """
    paths = {"raw": nnUNet_raw, "preprocessed": nnUNet_preprocessed, "results": nnUNet_results}
    problems = []
    for name in names or paths:
        variable, value = f"nnUNet_{name}", paths[name].get()
        if not value:
            what, fix = "the environment variable is not set", f"export {variable}=/a/folder"
            problems.append(Problem(variable, what, fix))
        elif value.startswith("~"):  # a folder of that name would be made
            fix = "write the home folder out, or without quotes, so that the shell does"
            problems.append(Problem(f"{variable}={value}", "must not begin with ~", fix))
        elif Path(value).is_dir():
            if name == "preprocessed" and (raw := nnUNet_raw.get()) and is_same(raw, value):
                what, fix = "must be another folder than nnUNet_raw", "choose another"
                problems.append(Problem(f"{variable}={value}", what, fix))
        elif name == "raw" or Path(value).exists():
            fix = "create it or correct the variable"
            problems.append(Problem(f"{variable}={value}", "is no folder", fix))
        else:
            Path(value).mkdir(parents=True, exist_ok=True)
    raise_if_any("nnU-Net's folders are not set up:", problems)


def is_same(one: str | Path, other: str | Path) -> bool:
    """Whether both name one folder that is there."""
    return Path(one).exists() and Path(one).samefile(other)


def dataset_name(name_or_id: str) -> str:
    """The full name "DatasetXXX_Name" of a data set given by name or number.

    Raises:
        UserError: no or several data sets have that number.
    """
    if name_or_id.startswith("Dataset"):
        return name_or_id
    try:
        number = int(name_or_id)
    except ValueError:
        raise UserError(
            f"a data set is given by its number or its full name, got {name_or_id!r}. ",
            fix="for example -d 42 or -d Dataset042_Pancreas",
        ) from None
    candidates = [str(name) for name in find_candidate_datasets(number)]
    if len(candidates) != 1:
        found = f"several: {', '.join(candidates)}" if candidates else "none"
        folders = (nnUNet_raw, nnUNet_preprocessed, nnUNet_results)
        looked = ", ".join(f"{folder.env_var_name}={folder.get()}" for folder in folders)
        raise UserError(
            f"exactly one data set must have the number {number}, found {found} (in {looked}). ",
            fix=f"name the folder Dataset{number:03d}_SOMETHING in nnUNet_raw, or give its name",
        )
    return str(maybe_convert_to_dataset_name(number))


def raw_dataset(name_or_id: str) -> Path:
    """The raw folder of a data set.

    Raises:
        UserError: it is not there.
    """
    require_paths("raw")
    folder = Path(nnUNet_raw.require()) / dataset_name(name_or_id)
    if not folder.is_dir():
        raise UserError(
            f"{folder} does not exist", fix="put the data set there, or correct -d or nnUNet_raw"
        )
    return folder


def number_problems(option: str, number: int) -> Iterator[Problem]:
    """A number that no data set can have; ``option`` gave it."""
    if not 1 <= number <= 999:
        yield Problem(option, f"must be a number from 1 to 999, got {number}", "choose another")


def new_raw_dataset(raw: Path, number: int, name: str, option: str = "-o") -> Path:
    """The folder of a raw data set that is to be made; nothing is written.

    Args:
        raw: nnUNet_raw.
        number, name: of the data set.
        option: by which the user gave the number.

    Raises:
        UserError: the number or the name can be none, or another data set has the number.
    """
    problems = [*number_problems(option, number)]
    if not name.strip() or "/" in name or "\\" in name:
        what = f"must be a name without / and \\, got {name!r}"
        problems.append(Problem("--name", what, "choose another"))
    raise_if_any("There can be no such data set:", problems)
    target = raw / f"Dataset{number:03d}_{name}"
    others = [path.name for path in raw.glob(f"Dataset{number:03d}_*") if path != target]
    if others:
        raise UserError(
            f"the number {number} is taken by {', '.join(others)}", fix=f"choose another {option}"
        )
    return target


def was_made(target: Path, record_file: str, record: Any) -> bool:
    """Whether a data set that is to be made is there already, made in the very same way.

    Args:
        target: its folder.
        record_file: name of the file in it that says how it was made.
        record: what that file would say.

    Raises:
        UserError: it is there and is something else.
    """
    if not target.exists():
        return False
    made = target / record_file
    if made.is_file() and read_json(made) == record:
        return True
    raise UserError(
        f"{target} exists already and was not made by this command from what is there now",
        fix="choose another number or name, or remove it",
    )


def preprocessed_dataset(name_or_id: str) -> Path:
    """The preprocessed folder of a data set, which may not exist yet."""
    require_paths("preprocessed")
    return Path(nnUNet_preprocessed.require()) / dataset_name(name_or_id)


def set_aside(preprocessed: Path) -> dict[str, list[str]]:
    """The unlabelled cases that ``semi_nnunet preprocess`` set aside, bad ones and outliers, with
    the reasons; no training sees them.
    """
    return optional_json(preprocessed / SKIPPED_FILE)


def read_plans(preprocessed: Path, name: str) -> dict[str, Any]:
    """The plans of a preprocessed data set.

    Raises:
        UserError: there are none of that name; the fix names those there are.
    """
    path = preprocessed / f"{name}.json"
    if path.is_file() and is_plans(path):
        return dict(read_json(path))
    known = [other.stem for other in sorted(preprocessed.glob("*.json")) if is_plans(other)]
    fix = (
        f"choose -p from {', '.join(known)}"
        if known
        else f"semi_nnunet preprocess -d {preprocessed.name} first"
    )
    what = "holds no plans" if path.is_file() else "does not exist"
    raise UserError(f"{path} {what}", fix=f"{fix}")


def is_plans(path: Path) -> bool:
    """Whether a JSON file is nnU-Net's plans."""
    content = read_json(path)
    return isinstance(content, dict) and "plans_name" in content
