"""Checks of a raw data set that need only ``dataset.json`` and the names of its files."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Collection, Iterator, Mapping

from semi_nnunet.raw.classes import find_annotated_case_problems
from semi_nnunet.raw.description import (
    IMAGE_ENDINGS,
    RawDataset,
    list_files,
    list_mac_files,
    path_within,
)
from semi_nnunet.raw.folds import find_patient_problems
from semi_nnunet.raw.layout import DATASET_JSON, DISTILLED_FILE, UNLABELLED_IMAGES
from semi_nnunet.util.errors import Problem

UNLABELLED_LABELS = "labelsUn"


def find_naming_problems(raw: RawDataset) -> Iterator[Problem]:
    """Yield the problems that the names of files and cases show."""
    ids: dict[str, list[str]] = {"labelled": [], "unlabelled": [], "test": []}
    for case in raw.cases:
        ids[case.subset].append(case.case)
    folders = [UNLABELLED_IMAGES, "imagesTs"]
    folders += [] if "dataset" in raw.description else ["imagesTr"]
    files = {folder: set(list_files(raw.folder / folder)) for folder in folders}
    yield from _find_mac_problem(raw, folders)
    yield from _find_training_problems(raw)
    yield from _find_name_problems(raw, files)
    subsets = {subset: set(cases) for subset, cases in ids.items()}
    yield from _find_unlabelled_problems(raw, subsets, files[UNLABELLED_IMAGES])
    yield from find_patient_problems(raw.description, ids, DATASET_JSON)
    yield from find_annotated_case_problems(raw.description, ids, DATASET_JSON)


def _find_mac_problem(raw: RawDataset, folders: Collection[str]) -> Iterator[Problem]:
    """Yield one problem for the hidden files that nnU-Net, other than this package, reads."""
    ending = raw.description["file_ending"]
    read = [folder for folder in folders if folder != UNLABELLED_IMAGES]
    hidden = [
        f"{folder}/{name}"
        for folder in read
        for name in list_mac_files(raw.folder / folder, ending)
    ]
    if hidden:
        defect = f"macOS wrote {len(hidden)} files here that are no images, but nnU-Net would take "
        fix = f"find {shlex.quote(str(raw.folder))} -name '._*' -delete"
        yield Problem(hidden[0], f"{defect}for cases", fix)


def _find_training_problems(raw: RawDataset) -> Iterator[Problem]:
    labelled = [case for case in raw.cases if case.subset == "labelled"]
    if len(labelled) != raw.description["numTraining"]:
        defect = f"'numTraining' must be the number of labelled cases, {len(labelled)}, "
        defect += f"got {raw.description['numTraining']}"
        yield Problem(DATASET_JSON, defect, "correct it, or add the absent cases")
    for case in labelled:
        if case.label is not None and not os.path.lexists(case.label):
            file_name = path_within(case.label, os.fspath(raw.folder))
            yield Problem(file_name, "the file is absent", "add the file or remove its case")


def _find_name_problems(raw: RawDataset, files: Mapping[str, Collection[str]]) -> Iterator[Problem]:
    ending = raw.description["file_ending"]
    for case in raw.cases:
        if defect := _describe_id_defect(case.case):
            yield Problem(f"case {case.case!r} ({case.subset})", defect, "rename its files")
    other_endings = tuple(other for other in IMAGE_ENDINGS if not ending.endswith(other))
    for folder, names in files.items():
        for name in sorted(names):
            if name.endswith(ending) and not re.search(r"._\d{4}$", name[: -len(ending)]):
                defect = f"images must be named CASE_0000{ending}, CASE_0001{ending}, ..."
                yield Problem(os.path.join(folder, name), defect, "rename the file")
        if folder == UNLABELLED_IMAGES:
            continue  # which may hold no other ending at all
        for name in sorted(names):
            if name.endswith(other_endings) and not name.endswith(ending):
                stem = name.removesuffix(next(end for end in other_endings if name.endswith(end)))
                if f"{stem}{ending}" in names:
                    defect = f"must end with {ending}, which {DATASET_JSON} declares, as "
                    defect += f"{stem}{ending} beside it"
                    yield Problem(os.path.join(folder, name), defect, "remove one of the two")


def _describe_id_defect(case: str) -> str | None:
    """Spaces inside an id are fine; nnU-Net takes the preprocessed image CASE_seg for a label."""
    if re.search(r"[/\\]", case) or not case.isprintable():
        return f"a case id must be printable and have no path separators, got {case!r}"
    if case != case.strip():
        return f"a case id must not begin or end with a space, got {case!r}"
    if case.endswith("_seg"):
        return f"a case id must not end with '_seg', which marks labels, got {case!r}"
    return None


def _find_unlabelled_problems(
    raw: RawDataset, ids: Mapping[str, set[str]], files: Collection[str]
) -> Iterator[Problem]:
    folder, ending = raw.folder / UNLABELLED_IMAGES, raw.description["file_ending"]
    all_pseudo_labelled = (raw.folder / DISTILLED_FILE).is_file()
    if not ids["unlabelled"] and not all_pseudo_labelled:
        defect = f"holds no image CASE_0000{ending}" if folder.is_dir() else "the folder is absent"
        yield Problem(UNLABELLED_IMAGES, defect, "put the unlabelled images there")
    for name in sorted(files):
        is_sidecar = ending in (".tif", ".tiff") and name.endswith(".json")  # holds the spacing
        if not (name.endswith(ending) or is_sidecar):
            defect = f"must end with {ending}, which {DATASET_JSON} declares"
            yield Problem(f"{UNLABELLED_IMAGES}/{name}", defect, "convert the file, or remove it")
    for case in sorted(ids["unlabelled"]):
        for subset in ("labelled", "test"):
            if case in ids[subset]:
                defect = f"case {case!r} is unlabelled and also a {subset} case"
                yield Problem(UNLABELLED_IMAGES, defect, "keep it in one place")
        label_folders = [UNLABELLED_LABELS, *([] if case in ids["labelled"] else ["labelsTr"])]
        for label_folder in label_folders:
            if os.path.lexists(raw.folder / label_folder / f"{case}{ending}"):
                defect = f"is a label of case {case!r}, which is unlabelled"
                fix = "move its images to imagesTr, or the label out of the data set"
                yield Problem(os.path.join(label_folder, case + ending), defect, fix)
