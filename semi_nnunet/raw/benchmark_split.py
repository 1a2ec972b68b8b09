"""Split: a benchmark data set with hidden labels, made from a labelled data set.

Some cases of the source are labelled in the new data set, perhaps sparsely, the others unlabelled.
"""

from __future__ import annotations

import filecmp
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from semi_nnunet.raw.classes import ANNOTATED_KEY as ANNOTATED
from semi_nnunet.raw.classes import restrict_annotations
from semi_nnunet.raw.description import find_cases, list_files
from semi_nnunet.raw.folds import PATIENT_KEY as PATIENT
from semi_nnunet.raw.folds import (
    PatientOf,
    build_patient_finder,
    case_as_patient,
    exclude_patients_of,
    find_split_patients,
    group_by_patient,
)
from semi_nnunet.raw.layout import (
    DATASET_JSON,
    UNLABELLED_IMAGES,
    require_unchanged_source,
    was_dataset_made,
)
from semi_nnunet.raw.readers import COPY_AGAIN, find_spacing_file
from semi_nnunet.raw.sparse_labels import SparseLabelWriter, Sparsity
from semi_nnunet.util.errors import Problem, UserError, raise_if_any
from semi_nnunet.util.files import (
    could_not_write,
    folder_aside,
    optional_json,
    read_json,
    write_json,
)
from semi_nnunet.util.names import list_first
from semi_nnunet.util.provenance import LINKED, recorded

RECORD = "split.json"  # in the new data set: its options and cases
HIDDEN = "hidden_labels"  # key of RECORD
MADE_FROM = "split_from.json"  # in the new data set: the files that it was made from


@dataclass(frozen=True)
class Split:
    """A data set with hidden labels.

    Args:
        folder: of the data set, in nnUNet_raw.
        hidden_labels: folder of the labels that are not in it.
        is_new: False if the same split existed already; then nothing was written.
        description: the numbers of cases, in words.
    """

    folder: Path
    hidden_labels: Path
    is_new: bool
    description: str


def describe_subsets(dataset: Path) -> str:
    """Return the numbers of cases as "4 in imagesTr, 116 in imagesUn, ..."."""
    ending = read_json(dataset / DATASET_JSON)["file_ending"]
    folders = ("imagesTr", UNLABELLED_IMAGES, "imagesTs")
    return ", ".join(f"{len(find_cases(dataset / name, ending))} in {name}" for name in folders)


# ---- choosing the cases ----


def choose_split_cases(
    source: Path,
    labelled: int | None,
    file: str | Path | None,
    seed: int,
    held_out: int | str | Path | None,
    keep_all: bool = False,
    group: Callable[[PatientOf], PatientOf] = lambda patient_of: patient_of,
) -> tuple[list[str], Sequence[str]]:
    """Return the cases of a data set that keep their labels, and the held-out ones.

    Args:
        source: raw data set with all labels.
        labelled, seed, held_out: see :func:`semi_nnunet.split`.
        file: lists the cases to keep; None: they are drawn.
        keep_all: without a number or list, all cases stay labelled.
        group: makes a function of cases that stay together of the one of patients; for cases that
            are drawn.

    Raises:
        UserError: a number or list does not fit the cases.
    """
    description = read_json(source / DATASET_JSON)
    patient_of = build_patient_finder(description)
    cases = list(find_cases(source / "imagesTr", description["file_ending"]))
    listed = None if file is None else read_case_list(file, labelled)
    if keep_all and labelled is None and listed is None:
        listed = cases
    group_of = group(patient_of)
    kept = choose_labelled(cases, labelled, listed, seed, group_of)
    if held_out is None:
        return kept, ()
    is_number = isinstance(held_out, int) or str(held_out).isdecimal()
    request = int(str(held_out)) if is_number else read_case_list(str(held_out), None)
    if not is_number:
        group_of = patient_of
    others = exclude_patients_of(cases, kept, group_of)
    return kept, choose_held_out(others, request, group_of)


def choose_labelled(
    cases: Sequence[str],
    number: int | None,
    listed: Sequence[str] | None,
    seed: int,
    patient_of: PatientOf = case_as_patient,
) -> list[str]:
    """Return the cases that keep their labels.

    >>> choose_labelled(["a", "b", "c", "d"], 2, ["d", "b", "a"], seed=0)
    ['b', 'd']

    Args:
        number: how many; None: all listed ones.
        listed: names; the first ``number`` are used. None: draw whole patients at random, and leave
            out each patient that would take the total further from ``number``.

    Raises:
        UserError: neither number nor list, an unknown case, a number that is too large or too
            small, or a negative seed.
    """
    if seed < 0:
        raise UserError(f"--seed must be 0 or more, got {seed}", fix="correct it")
    if number is None and listed is None:
        raise UserError(
            "some cases must stay labelled", fix="--labelled N draws them, --cases FILE names them"
        )
    if listed is None:
        patients = group_by_patient(sorted(cases), patient_of)
        drawn = [str(name) for name in np.random.default_rng(seed).permutation(sorted(patients))]
        pool = [case for patient in drawn for case in patients[patient]]
    else:
        pool = list(dict.fromkeys(listed))
        require_known_cases(pool, cases, "the list names cases that imagesTr lacks")
    if not pool:
        container, verb = ("imagesTr", "add") if listed is None else ("the list", "name")
        raise UserError(
            f"at least one case must stay labelled, {container} is empty", fix=f"{verb} cases there"
        )
    if number is not None and not 1 <= number <= len(pool):
        raise UserError(
            f"--labelled must be between 1 and {len(pool)}, the cases to choose from, got {number}",
            fix=f"a {'larger' if number < 1 else 'smaller'} --labelled",
        )
    if listed is not None or number is None:
        return sorted(pool[:number])
    labelled = list[str]()
    for patient in drawn:
        total = len(labelled) + len(patients[patient])
        if abs(total - number) < abs(len(labelled) - number):
            labelled += patients[patient]
    smallest = min(drawn, key=lambda patient: len(patients[patient]))
    return sorted(labelled or patients[smallest])


def choose_held_out(
    cases: Sequence[str], request: int | Sequence[str], patient_of: PatientOf = case_as_patient
) -> list[str]:
    """Return the unlabelled cases that become test cases, to choose settings by.

    >>> choose_held_out(["a", "b", "c", "d"], 2)
    ['a', 'c']

    Args:
        cases: cases of patients without a labelled case.
        request: how many cases, evenly spaced in alphabetical order, or their names. Patients stay
            whole, so that there may be a few more or fewer than requested.

    Raises:
        UserError: an unknown case, a number that is too large or too small, or only some cases of a
            patient.
    """
    pool = sorted(cases)
    if isinstance(request, int):
        number = request
    else:
        headline = (
            "--held-out names cases that are labelled, of a labelled patient, or do not exist"
        )
        require_known_cases(request, pool, headline)
        number = len(set(request))
    if not 1 <= number <= len(pool):
        raise UserError(
            f"--held-out must be 1 to {len(pool)} of the cases that are not labelled, got {number}",
            fix="correct it",
        )
    if isinstance(request, int):
        patients = group_by_patient(pool, patient_of)
        names, sizes = list(patients), np.array([len(group) for group in patients.values()])

        def spaced(count: int) -> np.ndarray:
            return np.arange(count) * len(names) // count

        totals = {count: int(sizes[spaced(count)].sum()) for count in range(1, len(names) + 1)}
        best = min(totals, key=lambda count: (abs(totals[count] - number), totals[count], count))
        return [case for index in spaced(best) for case in patients[names[index]]]
    torn = find_split_patients({"train": set(pool) - set(request), "val": request}, patient_of)
    if torn:
        raise UserError(
            f"--held-out must name all cases of a patient or none, got some of {list_first(torn)}",
            fix="add the others",
        )
    return sorted(set(request))


def require_known_cases(names: Sequence[str], cases: Sequence[str], headline: str) -> None:
    """Raise a UserError that begins with ``headline`` if some names are not in ``cases``."""
    allowed = set(cases)
    if unknown := [name for name in names if name not in allowed]:
        raise UserError(f"{headline}: {list_first(unknown, 10)}", fix="correct it")


def read_case_list(path: str | Path, number: int | None) -> list[str]:
    """Read case ids from a file: one a line, a JSON list, or a JSON object of such lists.

    Args:
        number: key of the list in a JSON object; or the object has an object "labelled" of lists
            with any names, and the list of so many cases is read.

    Raises:
        UserError: the file is missing, malformed, or ambiguous.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"the list {path} does not exist", fix="correct the path, or name the cases by --cases"
        )
    if path.suffix != ".json":
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise UserError(
                f"{path} must be a text file in UTF-8", fix="save it as one, with a case a line"
            ) from error
        return [line.strip() for line in lines if line.strip()]
    content = read_json(path)
    if isinstance(content, Mapping):
        content = select_case_list(path, content, number)
    if not (isinstance(content, list) and all(isinstance(case, str) for case in content)):
        raise UserError(
            f"{path} must hold a list of case ids, got {json.dumps(content)[:80]}",
            fix='write them as ["case_1", "case_2"], or one a line in a .txt file',
        )
    return content


def select_case_list(path: Path, content: Mapping[str, Any], number: int | None) -> list[str]:
    """Return the list of so many cases; see :func:`read_case_list`."""
    lists = [(key, value) for key, value in content.items() if isinstance(value, list)]
    if isinstance(labelled := content.get("labelled"), Mapping):  # named by percent, for example
        values = [value for value in labelled.values() if isinstance(value, list)]
        lists = [(str(len(value)), value) for value in values] or lists
    if number is None:
        raise UserError(
            f"{path} must hold one list of cases here, got an object of several",
            fix="write the right one into its own file",
        )
    matching = [value for key, value in lists if key == str(number)]
    if not matching:
        keys = ", ".join(dict(lists)) or "nothing"
        raise UserError(
            f"{path} holds lists named {keys}, none named {number}",
            fix="give one of these as --labelled",
        )
    if any(value != matching[0] for value in matching):
        raise UserError(
            f"{path} holds {len(matching)} different lists of {number} cases",
            fix="write the right one into its own file, and give that as --cases",
        )
    return list(matching[0])


# ---- writing the data set ----


def write_split(
    source: Path,
    target: Path,
    labelled: Sequence[str],
    hidden_labels: Path,
    symlink: bool,
    held_out: Sequence[str] = (),
    sparsity: Sparsity | None = None,
    seed: int = 0,
) -> Split:
    """Write the benchmark data set ``target``, unless the same split exists already.

    Args:
        labelled: the cases that keep their labels.
        hidden_labels: a folder outside ``target`` for the labels of cases that become unlabelled.
        symlink: link to the source's files instead of copying them.
        held_out: cases that replace the source's test cases; unlabelled images of the same patients
            are dropped.
        sparsity: how much of the labels stays; their full ones are hidden. None: all of them.
        seed: of sparse labels.

    Raises:
        UserError: ``target`` is something else, or was split from files that have changed since;
            ``hidden_labels`` lies inside it or in ``source``, or holds other labels; a file of
            ``source`` is missing; a label cannot be made sparse; or a case of ``source`` is
            labelled and unlabelled.
    """
    description = read_json(source / DATASET_JSON)
    record: dict[str, Any] = {"source": source.name, "labelled": list(labelled)}
    if held_out:
        record["held_out"] = list(held_out)
    if sparsity is not None:
        record |= {"sparse": str(sparsity), "seed": seed}
    record |= {key: description[key] for key in (PATIENT, ANNOTATED) if key in description}
    hidden_labels = hidden_labels.absolute()
    if HIDDEN in (earlier := optional_json(target / RECORD)):
        record[HIDDEN] = earlier[HIDDEN]
        if Path(earlier[HIDDEN]).is_dir():  # not if all was moved since
            hidden_labels = Path(earlier[HIDDEN])
    exists = was_dataset_made(target, RECORD, record)
    around = [hidden_labels.resolve(), *hidden_labels.resolve().parents]
    if target.resolve() in around or source.resolve() in around:
        raise UserError(
            f"the hidden labels must lie outside the new data set and its source, got "
            f"{hidden_labels}",
            fix="another --hidden-labels",
        )
    if "dataset" in description:
        raise UserError(
            f"{source}/{DATASET_JSON} lists its files one by one, which split does not support",
            fix="use the folders imagesTr and labelsTr",
        )
    # sparse labels replace the full ones, which are hidden
    kept_labels = hidden_labels if sparsity else Path("labelsTr")
    transfers = plan_transfers(source, description, labelled, held_out, kept_labels, hidden_labels)
    raise_if_any(
        f"{source} cannot be split:",
        [
            Problem(f"{file.parent.name}/{file.name}", "is no file that can be read", COPY_AGAIN)
            for file, _ in transfers
            if not file.is_file()
        ],
    )
    is_linked = LINKED in optional_json(target / MADE_FROM).values() if exists else symlink
    inputs: dict[str, Path | str] = {DATASET_JSON: json.dumps(description, sort_keys=True)}
    for file in (part for whole, _ in transfers for part in list_parts(whole)):
        was_thinned = sparsity is not None and file.parent.name == "labelsTr"
        follows = is_linked and not was_thinned
        inputs[file.relative_to(source).as_posix()] = LINKED if follows else file
    if exists:
        fix = (
            f"another --new-id and --hidden-labels; or remove {target} and its labels in "
            f"{hidden_labels}, then split again"
        )
        require_unchanged_source(target / MADE_FROM, inputs, str(source), fix)
        return Split(target, hidden_labels, False, describe_subsets(target))
    others = [
        file.name
        for file, folder in transfers
        if folder == hidden_labels and (folder / file.name).exists()
        if not filecmp.cmp(file, folder / file.name, shallow=False)
    ]
    if others:
        raise UserError(
            f"{hidden_labels} holds other labels of these names: {list_first(others)}",
            fix="another --hidden-labels, or move them away",
        )
    with folder_aside(target, "Nothing was split") as aside, recorded(aside / MADE_FROM, inputs):
        put = FileTransfer(symlink)
        if sparsity is not None:
            sparse = SparseLabelWriter(sparsity, description, seed)
            for case in tqdm(labelled, "sparse labels", unit="case", disable=None):
                name = f"{case}{description['file_ending']}"
                sparse.write(case, source / "labelsTr" / name, aside / "labelsTr" / name)
            raise_if_any("Some labels cannot be made sparse:", sparse.problems)
            raise_if_any("The sparse labels lack classes:", sparse.find_lost_classes())
            description = sparse.description
        for file, folder in transfers:
            put(file, aside / folder)  # an absolute folder stays as it is
        tests = find_cases(aside / "imagesTs", description["file_ending"])
        description = restrict_annotations(description, [*labelled, *tests])
        write_json(aside / DATASET_JSON, {**description, "numTraining": len(labelled)})
        write_json(aside / RECORD, {**record, HIDDEN: str(hidden_labels)})
    return Split(target, hidden_labels, True, describe_subsets(target))


def plan_transfers(
    source: Path,
    description: Mapping[str, Any],
    labelled: Sequence[str],
    held_out: Sequence[str],
    kept_labels: Path,
    hidden_labels: Path,
) -> list[tuple[Path, Path]]:
    """Return each file of the source with the folder that it goes to, relative to the new data set.

    Args:
        labelled, held_out: see :func:`write_split`.
        kept_labels: folder of the labels of ``labelled``.
        hidden_labels: folder of the other labels.

    Raises:
        UserError: a label is missing, or a case is labelled and unlabelled.
    """
    ending = description["file_ending"]
    cases, unlabelled = (
        find_cases(source / folder, ending) for folder in ("imagesTr", UNLABELLED_IMAGES)
    )
    labels = {case: source / "labelsTr" / f"{case}{ending}" for case in cases}
    missing = [
        Problem(f"labelsTr/{path.name}", "the file is absent", "add it, or remove its case")
        for path in labels.values()
        if not path.is_file()
    ]
    if missing:
        raise UserError(f"every case of {source} needs a label:", missing)
    if contradictory := sorted(set(cases) & set(unlabelled)):
        raise UserError(
            f"{source} has cases in imagesTr and in {UNLABELLED_IMAGES}: "
            f"{', '.join(contradictory)}",
            fix="remove them from one of the two",
        )
    pool = Path(UNLABELLED_IMAGES)
    folders = {case: (Path("imagesTr"), kept_labels) for case in labelled}
    folders |= {case: (Path("imagesTs"), Path("labelsTs")) for case in held_out}
    transfers = list[tuple[Path, Path]]()
    for case, files in cases.items():
        images, label = folders.get(case, (pool, hidden_labels))
        transfers += [*((Path(file), images) for file in files), (labels[case], label)]
    for case in exclude_patients_of(unlabelled, held_out, build_patient_finder(description)):
        transfers += [(Path(file), pool) for file in unlabelled[case]]
    for folder in () if held_out else ("imagesTs", "labelsTs"):
        names = [name for name in list_files(source / folder) if name.endswith(ending)]
        transfers += [(source / folder / name, Path(folder)) for name in names]
    return transfers


def list_parts(file: Path) -> list[Path]:
    """Return an image or label and, of a .tif, the .json file that holds its spacing."""
    sidecars = (find_spacing_file(file, is_label) for is_label in (True, False))
    return [file, *(sidecar for sidecar in sidecars if sidecar)]


class FileTransfer:
    """Copy or link files into a folder, with the .json file that holds the spacing of a .tif."""

    def __init__(self, symlink: bool):
        self.symlink = symlink

    def __call__(self, source: Path, folder: Path) -> None:
        for part in list_parts(source):
            self._put(part, folder)

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
                raise  # the source cannot be read
            raise could_not_write(target, error, folder) from error
