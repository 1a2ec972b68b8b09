"""A folder of reviewed labels: which case each file belongs to, and everything wrong with it."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from semi_nnunet.preprocessing.manifest import Manifest, WrittenLabels
from semi_nnunet.raw.classes import AnnotatedClasses
from semi_nnunet.raw.description import (
    IMAGE_ENDINGS,
    RawCase,
    RawDataset,
    list_files,
)
from semi_nnunet.raw.layout import EARLIER_RECORD, MODEL, PREDICTED_FROM
from semi_nnunet.raw.readers import (
    BrokenFileError,
    choose_reader,
    find_spacing_file,
    get_spacing_file,
    read_with_nnunet,
)
from semi_nnunet.util.errors import Problem, UserError
from semi_nnunet.util.files import optional_json, sha256_of_file
from semi_nnunet.verify.integrity import check_dataset
from semi_nnunet.verify.reports import CaseReport

PROPOSALS_RECORD = "proposals.json"  # of next: where the labels are as the models wrote them
FOLDERS_OF_REVIEW = ("images", "uncertainty", "segmentations")  # hold no labels of a reviewer
POOL_REQUEST = "request.json"  # of pseudo-label, next to its labels
OTHER_ENDINGS = (*IMAGE_ENDINGS, ".seg.nrrd", ".nhdr", ".mgz", ".dcm", ".jpg", ".npy", ".npz")


@dataclass(frozen=True)
class ReviewedLabel:
    """A label that is to join the data set.

    Args:
        path: the reviewed file.
        case: with its present images and this label.
        is_correction: whether the case has another label already.
        report: of the images and this label; None before the check.
        changed_voxels: voxels in which it differs from the proposal, or, for a correction, from the
            present label; None: not known.
    """

    path: Path
    case: RawCase
    is_correction: bool = False
    report: CaseReport | None = None
    changed_voxels: int | None = None

    @property
    def name(self) -> str:
        """Identifier of the case."""
        return self.case.case

    @property
    def digest(self) -> str:
        """SHA-256 of the reviewed file when it was checked."""
        return self.report.records[-1].digest if self.report and self.report.records else ""


@dataclass(frozen=True)
class Proposals:
    """Labels that models proposed to the reviewer.

    Args:
        folder: of the files; None: only their checksums are known, if at all.
        digests: case -> SHA-256 of the proposed file.
        models: names of the models that made them.
        untouched: cases whose label or segmentation is as a command wrote it.
    """

    folder: Path | None = None
    digests: Mapping[str, str] | None = None
    models: tuple[str, ...] = ()
    untouched: frozenset[str] = frozenset()


def find_labels_folder(folder: Path) -> Path:
    """Return the folder of label files: the folder itself, or labels/ of pseudo-label or next.

    Raises:
        UserError: there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder of reviewed labels", fix="correct -i")
    is_of_command = any((folder / name).is_file() for name in (POOL_REQUEST, PROPOSALS_RECORD))
    return folder / "labels" if is_of_command and (folder / "labels").is_dir() else folder


def read_proposals(reviewed: Path, proposals: Path | None) -> Proposals:
    """Read the records of the proposals that the reviewer began with.

    Args:
        reviewed: folder of the reviewed labels; models may have written their labels there.
        proposals: another folder with the labels as the models wrote them, or None: the one that
            ``next`` recorded next to the reviewed folder, if any.
    """
    if proposals is None:
        record = optional_json(reviewed.absolute().parent / PROPOSALS_RECORD)
        recorded = Path(str(record.get("folder")))
        proposals = recorded if record and recorded.is_dir() else None
    folder = reviewed if proposals is None else find_labels_folder(proposals)
    request = optional_json(folder.parent / POOL_REQUEST)
    earlier = optional_json(folder / EARLIER_RECORD)
    models = [optional_json(folder / PREDICTED_FROM), *request.get("models", []), *earlier.values()]
    names = dict.fromkeys(str(model[MODEL]) for model in models if model and MODEL in model)
    digests = {
        case: next(iter(entry.files.values()))[1]
        for path in sorted((folder.parent / "parts").glob("*.jsonl") if request else [])
        for case, entry in Manifest(folder, path).read().items()
    }
    untouched = frozenset(WrittenLabels(reviewed).list_unchanged())
    return Proposals(None if proposals is None else folder, digests, tuple(names), untouched)


def match_cases(
    folder: Path, raw: RawDataset, classes: Sequence[str], replaces: bool
) -> tuple[list[ReviewedLabel], list[str], list[Problem]]:
    """Match the files of a folder with the cases of the data set.

    Args:
        classes: that the labels annotate; (): those that dataset.json says.
        replaces: whether labelled cases may get another label.

    Returns:
        The labels to accept, the cases whose label is accepted already, and the problems.
    """
    cases = {(case.subset, case.case): case for case in raw.cases}
    ending, names = raw.description["file_ending"], list_files(folder)
    labels, accepted, problems = list[ReviewedLabel](), list[str](), list[Problem]()
    stems = {name.removesuffix(ending) for name in names if name.endswith(ending)}
    for name in names:
        path = folder / name
        if not name.endswith(ending):
            problems += _find_ending_problem(path, ending, stems, {case for _, case in cases})
            continue
        stem = name.removesuffix(ending)
        unlabelled, labelled = (cases.get((subset, stem)) for subset in ("unlabelled", "labelled"))
        case = unlabelled or labelled
        if unlabelled and (labelled or ("test", stem) in cases):
            other = "labelled" if labelled else "a test case"
            defect = f"case {stem!r} is unlabelled and also {other}"
            problems.append(Problem(str(path), defect, "keep its image in one place"))
        elif case is None:
            problems.append(_describe_unknown(path, stem, raw, {case for _, case in cases}))
        elif unlabelled is None and _is_accepted(path, case, raw.description, classes):
            accepted.append(stem)
        elif unlabelled is None and not replaces:
            defect = f"case {stem!r} is labelled already, with another label or other classes"
            problems.append(Problem(str(path), defect, "--replace, if this corrects the label"))
        else:
            unknown = _list_unknown_values(raw.description, stem, classes)
            case = replace(case, subset="labelled", label=str(path), unknown_values=unknown)
            labels.append(ReviewedLabel(path, case, is_correction=unlabelled is None))
    return labels, accepted, problems


def _is_accepted(
    path: Path, case: RawCase, description: Mapping[str, Any], classes: Sequence[str]
) -> bool:
    """Return whether a reviewed file has the present label, and annotates the same classes."""
    if _list_unknown_values(description, case.case, classes) != case.unknown_values:
        return False
    label = str(case.label)
    try:
        if os.path.samefile(path, label) or sha256_of_file(path) == sha256_of_file(label):
            return True
        reader = choose_reader(dict(description), [label])
        (reviewed, place, _), (present, there, _) = (
            read_with_nnunet(str(file), reader, is_label=True) for file in (path, label)
        )
    except (OSError, UserError, BrokenFileError):  # described later
        return False
    return place == there and np.array_equal(reviewed, present)


def _list_unknown_values(
    description: Mapping[str, Any], case: str, classes: Sequence[str]
) -> frozenset[int]:
    entry = description.get("annotated", {})
    if classes:
        entry = {**entry, case: list(classes)}
    annotated = AnnotatedClasses.of({**description, "annotated": entry}) if entry else None
    return frozenset() if annotated is None else annotated.unknown_values(case)


def _find_ending_problem(
    path: Path, ending: str, stems: Collection[str], cases: Collection[str]
) -> Iterator[Problem]:
    """Yield a problem for a label in another format; tables and pages of a review are ignored."""
    name = path.name.lower()
    other = max((end for end in OTHER_ENDINGS if name.endswith(end)), key=len, default=None)
    if other is None:
        return
    stem, other = path.name[: -len(other)], path.name[-len(other) :]
    if stem in stems:
        yield Problem(
            str(path), f"is a second label of case {stem!r}, next to {stem}{ending}", "keep one"
        )
    else:
        known = "" if stem in cases else f", and {stem!r} is no case of this data set"
        defect = f"labels must end with {ending}, as the images do, got {other}{known}"
        yield Problem(str(path), defect, f"export it as {stem}{ending}, or remove it")


def find_folder_problems(folder: Path) -> Iterator[Problem]:
    """Yield a problem for each folder in a reviewed folder that holds what may be labels."""
    for path in sorted(path for path in folder.glob("[!.]*") if path.is_dir()):
        names = [name.lower() for name in list_files(path)]
        is_label = path.name.lower().endswith(OTHER_ENDINGS)
        if is_label or (
            path.name not in FOLDERS_OF_REVIEW and any(n.endswith(OTHER_ENDINGS) for n in names)
        ):
            fix = f"move its labels into {folder}, or the folder elsewhere"
            yield Problem(str(path), "is a folder, and labels in it are not read", fix)


def _describe_unknown(path: Path, stem: str, raw: RawDataset, cases: Collection[str]) -> Problem:
    """Return the problem of a file whose name is that of no case with images to label."""
    if any(case.subset == "test" and case.case == stem for case in raw.cases):
        defect = f"case {stem!r} is a test case, which must stay out of the training"
        return Problem(str(path), defect, "remove the file")
    image = re.fullmatch(r"(.+)_\d{4}", stem)
    if image and image[1] in cases:
        defect = f"has the name of an image of case {image[1]!r}, not of its label"
        ending = raw.description["file_ending"]
        return Problem(str(path), defect, f"name the label {image[1]}{ending}, or remove the file")
    defect = f"{raw.folder.name} has no case {stem!r} in imagesUn or imagesTr"
    return Problem(str(path), defect, "correct the name, or remove the file")


# ---- content ----


def check_labels(
    labels: Sequence[ReviewedLabel], raw: RawDataset, num_processes: int
) -> tuple[list[ReviewedLabel], list[Problem]]:
    """Check geometry and values of the labels against their images.

    Returns:
        The labels with their reports, and all problems.
    """
    if not labels:
        return [], []
    subset = replace(raw, cases=tuple(label.case for label in labels))
    reports = check_dataset(subset, num_processes, show_progress=False)
    checked = [replace(label, report=report) for label, report in zip(labels, reports, strict=True)]
    problems = [problem for report in reports for problem in report.problems]
    problems += _find_missing_sidecars(labels)
    problems += [
        Problem(str(label.path), "could not be read", "wait for its copy to end")
        for label in checked
        if not label.digest and not (label.report and label.report.problems)
    ]
    return checked, problems


def _find_missing_sidecars(labels: Sequence[ReviewedLabel]) -> Iterator[Problem]:
    for label in labels:
        image = find_spacing_file(label.case.images[0], is_label=False)
        if image and not find_spacing_file(label.path, is_label=True):
            sidecar = get_spacing_file(label.path, is_label=True)
            yield Problem(
                str(sidecar), f"must hold the spacing, as {image.name} does", f"copy {image}"
            )


def compare_with_proposals(
    labels: Sequence[ReviewedLabel], raw: RawDataset, proposals: Proposals, keeps_untouched: bool
) -> tuple[list[ReviewedLabel], list[Problem]]:
    """Count the voxels that the reviewer changed, and find proposals that were left unchanged.

    Args:
        labels: checked ones without problems.
        keeps_untouched: accept unchanged proposals.

    Returns:
        The labels with :attr:`~ReviewedLabel.changed_voxels`, and the problems.
    """
    compared, problems = list[ReviewedLabel](), list[Problem]()
    present = {case.case: case.label for case in raw.cases if case.subset == "labelled"}
    reader = choose_reader(raw.description, [str(label.path) for label in labels])
    for label in labels:
        changed = None
        is_proposal = (proposals.digests or {}).get(label.name) == label.digest
        if is_proposal or label.name in proposals.untouched:
            changed = 0
        elif proposals.folder is not None:
            changed = count_changed_voxels(label.path, proposals.folder / label.path.name, reader)
        is_untouched = changed == 0
        if changed is None and label.is_correction:
            changed = count_changed_voxels(label.path, Path(str(present[label.name])), reader)
        compared.append(replace(label, changed_voxels=changed))
        if is_untouched and not keeps_untouched:
            defect = "is still the proposal of the model, in which no voxel was changed"
            fix = "review it, remove it, or --untouched accepts proposals that are right"
            problems.append(Problem(str(label.path), defect, fix))
    return compared, problems


def count_changed_voxels(label: Path, other: Path, reader: type[Any]) -> int | None:
    """Return the number of voxels in which two labels differ; None if the other cannot be read."""
    if not other.is_file():
        return None
    try:
        first, second = (read_with_nnunet(str(path), reader, True)[0] for path in (label, other))
    except BrokenFileError:
        return None
    return int(np.count_nonzero(first != second)) if first.shape == second.shape else None
