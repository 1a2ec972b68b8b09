"""Make a benchmark with hidden labels from a labelled data set.

Some of its cases are labelled in the new data set, the others unlabelled.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semi_nnunet.data import annotated_classes
from semi_nnunet.data.integrity import cases_in
from semi_nnunet.data.layout import UNLABELLED_IMAGES, was_made
from semi_nnunet.data.patients import (
    KEY,
    PatientOf,
    apart_from,
    by_patient,
    itself,
    named,
    patient_finder,
    split_patients,
)
from semi_nnunet.util.errors import Problem, UserError
from semi_nnunet.util.files import could_not_write, folder_aside, read_json, write_json

RECORD = "split.json"  # in the new data set: what it was made from


def choose_labelled(
    cases: Sequence[str],
    number: int | None,
    chosen: Sequence[str] | None,
    seed: int,
    patient_of: PatientOf = itself,
) -> list[str]:
    """The cases that keep their labels.

    Args:
        cases: all.
        number: how many; None: all of ``chosen``.
        chosen: a list, of which the first ``number`` are taken; None: draw them at random, whole
            patients, but for those with whom the number is missed by more than without.
        seed: of the draw.
        patient_of: see :func:`~semi_nnunet.data.patients.patient_finder`.

    Raises:
        UserError: neither is given, a case does not exist, more are wanted than there are, or the
            seed is negative.
    """
    if seed < 0:
        raise UserError(f"--seed must be 0 or more, got {seed}", fix="correct it")
    if number is None and chosen is None:
        raise UserError(
            "some cases must stay labelled", fix="--labelled N draws them, --list FILE names them"
        )
    if chosen is None:
        patients = by_patient(sorted(cases), patient_of)
        drawn = [str(one) for one in np.random.default_rng(seed).permutation(sorted(patients))]
        pool = [case for patient in drawn for case in patients[patient]]
    else:
        pool = list(dict.fromkeys(chosen))
        require_among(pool, cases, "the list names cases that imagesTr lacks")
    if not pool:
        found, fix = ("imagesTr", "add") if chosen is None else ("the list", "name")
        raise UserError(
            f"at least one case must stay labelled, {found} is empty", fix=f"{fix} cases there"
        )
    if number is not None and not 1 <= number <= len(pool):
        raise UserError(
            f"--labelled must be between 1 and {len(pool)}, the cases to choose from, got {number}",
            fix=f"a {'larger' if number < 1 else 'smaller'} --labelled",
        )
    if chosen is not None or number is None:
        return sorted(pool[:number])
    total, taken = 0, list[str]()
    for patient in drawn:
        if abs(total + len(patients[patient]) - number) < abs(total - number):
            total += len(patients[patient])
            taken += patients[patient]
    smallest = min(drawn, key=lambda one: len(patients[one]))
    return sorted(taken or patients[smallest])


def choose_held_out(
    cases: Sequence[str], asked: int | Sequence[str], patient_of: PatientOf = itself
) -> list[str]:
    """The unlabelled cases that become test cases, to choose settings by.

    Args:
        cases: those of patients of whom no case stays labelled.
        asked: how many, evenly spaced in alphabetical order, or which: whole patients, so that
            there may be a few more or fewer than asked.
        patient_of: see :func:`~semi_nnunet.data.patients.patient_finder`.

    Raises:
        UserError: a case is not one of ``cases``, more are wanted than there are, or none, or some
            cases of a patient are named and others are not.
    """
    pool = sorted(cases)
    if isinstance(asked, int):
        number = asked
    else:
        wrong = "--held-out names cases that are labelled, of a labelled patient, or do not exist"
        require_among(asked, pool, wrong)
        number = len(set(asked))
    if not 1 <= number <= len(pool):
        raise UserError(
            f"--held-out must be 1 to {len(pool)} of the cases that are not labelled, got {number}",
            fix="correct it",
        )
    if isinstance(asked, int):
        patients = by_patient(pool, patient_of)
        names, sizes = list(patients), np.array([len(own) for own in patients.values()])

        def spaced(count: int) -> np.ndarray:
            return np.arange(count) * len(names) // count

        totals = {one: int(sizes[spaced(one)].sum()) for one in range(1, len(names) + 1)}
        count = min(totals, key=lambda one: (abs(totals[one] - number), totals[one], one))
        return [case for place in spaced(count) for case in patients[names[place]]]
    split = split_patients({"train": set(pool) - set(asked), "val": asked}, patient_of)
    if split:
        raise UserError(
            f"--held-out must name all cases of a patient or none, got some of {named(split)}. ",
            fix="add the others",
        )
    return sorted(set(asked))


def require_among(chosen: Sequence[str], cases: Sequence[str], wrong: str) -> None:
    """Raise a UserError that begins with ``wrong`` if some of ``chosen`` are not in ``cases``."""
    known = set(cases)
    unknown = [case for case in chosen if case not in known]
    if unknown:
        names = ", ".join(unknown[:10]) + (", ..." if len(unknown) > 10 else "")
        raise UserError(f"{wrong}: {names}", fix="correct it")


def read_case_list(path: str | Path, number: int | None) -> list[str]:
    """Case ids of a file: one a line, a JSON list, or a JSON object of such lists.

    Args:
        path: the file.
        number: of a JSON object, the key of the wanted list; or the object has an object
            "labelled", whose lists have any names, and the wanted one so many cases.

    Raises:
        UserError: the file is absent, holds none of these, or several of so many cases.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"the list {path} does not exist", fix="correct the path, or name the cases by --list"
        )
    if path.suffix != ".json":
        return [
            line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()
        ]
    content = read_json(path)
    if isinstance(content, Mapping):
        content = list_of(path, content, number)
    if not (isinstance(content, list) and all(isinstance(case, str) for case in content)):
        raise UserError(
            f"{path} must hold a list of case ids, got {json.dumps(content)[:80]}",
            fix='write them as ["case_1", "case_2"], or one a line in a .txt file',
        )
    return content


def list_of(path: Path, content: Mapping[str, Any], number: int | None) -> list[str]:
    """The list of so many cases; see :func:`read_case_list`."""
    lists = [(key, value) for key, value in content.items() if isinstance(value, list)]
    if isinstance(labelled := content.get("labelled"), Mapping):  # by percent, say
        values = [value for value in labelled.values() if isinstance(value, list)]
        lists = [(str(len(value)), value) for value in values] or lists
    if number is None:
        raise UserError(
            f"{path} must hold one list of cases here, got an object of several",
            fix="write the wanted one into a file of its own",
        )
    found = [value for key, value in lists if key == str(number)]
    if not found:
        named_so = ", ".join(dict(lists)) or "nothing"
        raise UserError(
            f"{path} holds lists named {named_so}, none named {number}",
            fix="give one of these as --labelled",
        )
    if any(one != found[0] for one in found):
        raise UserError(
            f"{path} holds {len(found)} different lists of {number} cases",
            fix="write the wanted one into a file of its own, and give that as --list",
        )
    return list(found[0])


def write_split(
    source: Path,
    target: Path,
    labelled: Sequence[str],
    hidden_labels: Path,
    symlink: bool,
    held_out: Sequence[str] = (),
) -> bool:
    """Write the benchmark data set ``target``.

    Args:
        source: a raw nnU-Net data set.
        target: the new raw data set.
        labelled: the cases that keep their labels.
        hidden_labels: a folder outside ``target`` for the labels of cases that become unlabelled.
        symlink: link to the source's files instead of copying them.
        held_out: cases that become the test cases of ``target``, in place of the source's;
            unlabelled images of the same patients are left out.

    Returns:
        False if the same split had been made before; then nothing is written.

    Raises:
        UserError: ``target`` is something else, ``hidden_labels`` lies inside it, a label is
            missing, or a case of ``source`` is labelled and unlabelled.
    """
    description = read_json(source / "dataset.json")
    record = {"source": source.name, "labelled": list(labelled)}
    if held_out:
        record["held_out"] = list(held_out)
    record |= {key: description[key] for key in (KEY, annotated_classes.KEY) if key in description}
    if was_made(target, RECORD, record):
        return False
    if target.resolve() in [hidden_labels.resolve(), *hidden_labels.resolve().parents]:
        raise UserError(
            f"the hidden labels must lie outside the new data set, got {hidden_labels}",
            fix="another --hidden-labels",
        )
    if "dataset" in description:
        raise UserError(
            f"{source}/dataset.json lists its files one by one, which split cannot take apart. ",
            fix="use the folders imagesTr and labelsTr",
        )
    ending = description["file_ending"]
    cases = cases_in(source / "imagesTr", ending)
    labels = {case: source / "labelsTr" / f"{case}{ending}" for case in cases}
    missing = [
        Problem(f"labelsTr/{path.name}", "the file is absent", "add it, or remove its case")
        for path in labels.values()
        if not path.is_file()
    ]
    if missing:
        raise UserError(f"every case of {source} needs a label:", missing)
    both = sorted(set(cases) & set(cases_in(source / UNLABELLED_IMAGES, ending)))
    if both:
        raise UserError(
            f"{source} has cases in imagesTr and in {UNLABELLED_IMAGES}: {', '.join(both)}. ",
            fix="remove them from one of the two",
        )
    with folder_aside(target, "Nothing was split") as aside:
        put = Transfer(symlink)
        folders = {case: (aside / "imagesTr", aside / "labelsTr") for case in labelled}
        folders |= {case: (aside / "imagesTs", aside / "labelsTs") for case in held_out}
        for case, files in cases.items():
            images, label = folders.get(case, (aside / UNLABELLED_IMAGES, hidden_labels))
            for file in files:
                put(Path(file), images)
            put(labels[case], label)
        others = cases_in(source / UNLABELLED_IMAGES, ending)
        for case in apart_from(others, held_out, patient_finder(description)):
            for file in others[case]:
                put(Path(file), aside / UNLABELLED_IMAGES)
        for folder in () if held_out else ("imagesTs", "labelsTs"):
            for path in sorted((source / folder).glob(f"*{ending}")):
                put(path, aside / folder)
        tests = cases_in(aside / "imagesTs", ending)
        description = annotated_classes.description_of(description, [*labelled, *tests])
        write_json(aside / "dataset.json", {**description, "numTraining": len(labelled)})
        write_json(aside / RECORD, record)
    return True


class Transfer:
    """Copy or link a file into a folder, with the .json file that holds the spacing of a .tif."""

    def __init__(self, symlink: bool):
        self.symlink = symlink

    def __call__(self, source: Path, folder: Path) -> None:
        self._put(source, folder)
        if source.suffix in (".tif", ".tiff"):
            for stem in (source.stem, re.sub(r"_\d{4}$", "", source.stem)):
                if (sidecar := source.with_name(f"{stem}.json")).is_file():
                    self._put(sidecar, folder)

    def _put(self, source: Path, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        target, temporary = folder / source.name, folder / f".{source.name}.tmp"
        temporary.unlink(missing_ok=True)
        try:
            if self.symlink:
                temporary.symlink_to(source.resolve())
            else:
                shutil.copy2(str(source), str(temporary))
            temporary.replace(target)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            if (error.filename, error.filename2) == (str(source), None):
                raise  # it cannot be read
            raise could_not_write(target, error, folder) from error


def describe(dataset: Path) -> str:
    """ "4 in imagesTr, 116 in imagesUn, ..." """
    ending = read_json(dataset / "dataset.json")["file_ending"]
    folders = ("imagesTr", UNLABELLED_IMAGES, "imagesTs")
    return ", ".join(f"{len(cases_in(dataset / name, ending))} in {name}" for name in folders)
