"""What a raw data set says it holds: ``dataset.json``, and the files that belong to each case."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from semi_nnunet.data.annotated_classes import AnnotatedClasses, case_problems, entry_problems
from semi_nnunet.data.declared_labels import NO_CLASSES, declared_values
from semi_nnunet.data.layout import DISTILLED_FILE, UNLABELLED_IMAGES
from semi_nnunet.data.patients import expression_problems, patient_problems
from semi_nnunet.util.errors import Problem, UserError, raise_if_any

JSON = "dataset.json"
LABELS_OF_UNLABELLED = "labelsUn"
UNLABELLED_DOMAIN = "unlabelled_domain"  # of dataset.json: are the unlabelled images of its kind?
DOMAINS = ("same", "other")
IMAGE_ENDINGS = (
    ".nii.gz", ".nii", ".mha", ".nrrd", ".gipl", ".png", ".bmp", ".tif", ".tiff",
)  # fmt: skip


@dataclass(frozen=True)
class RawCase:
    """One case of the raw data set.

    Args:
        case: its identifier.
        subset: "labelled", "unlabelled" or "test".
        images: its channel files.
        label: its label file, None if it needs none.
        named_by_channel: the images are named CASE_0000, CASE_0001, ..., not listed in JSON.
        unknown_values: what its label may not hold, as it does not annotate such a class.
    """

    case: str
    subset: str
    images: tuple[str, ...]
    label: str | None = None
    named_by_channel: bool = True
    unknown_values: frozenset[int] = frozenset()


def cases_in(folder: str | Path, file_ending: str) -> dict[str, list[str]]:
    """Case id -> its channel files (sorted), in O(number of files); nnU-Net's own is quadratic.

    Files are named ``CASE_0000.ending``; others are left out. A missing folder gives {}. A folder
    of such a name counts, for the check of its case to name it: unpacking makes these of images.
    """
    pattern = re.compile(r"(.+)_\d{4}" + re.escape(file_ending), re.DOTALL)
    cases: dict[str, list[str]] = {}
    for name in names_in(folder):
        if match := pattern.fullmatch(name):
            cases.setdefault(match[1], []).append(os.path.join(folder, name))
    return cases


def misnamed(
    folder: str | Path, cases: Mapping[str, Sequence[str]], endings: Sequence[str] = IMAGE_ENDINGS
) -> Iterator[Problem]:
    """Images that are of no case, as they are not named CASE_0000; hidden files are none.

    Args:
        folder: of the images.
        cases: of :func:`cases_in`.
        endings: of the files that are images.
    """
    known = {os.path.basename(file) for files in cases.values() for file in files}
    for name in files_in(folder):
        is_image = name.lower().endswith(tuple(endings)) and not name.startswith(".")
        if is_image and name not in known:
            what = "must be named CASE_0000 and have the ending that the model was trained with"
            yield Problem(name, what, "name it so, or convert it")


def files_in(folder: str | Path) -> list[str]:
    """Sorted names of the files and links (dangling ones, too) in a folder; [] if it is missing."""
    if not os.path.isdir(folder):
        return []
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if not _is_folder(entry))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder, or a link to one; only links are looked up (which may be a loop)."""
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def names_in(folder: str | Path) -> list[str]:
    """Sorted names of all that is in a folder; [] if it is missing."""
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else []


def read_description(raw_dataset: str | Path, name: str = JSON) -> dict[str, Any]:
    """Return ``dataset.json``, with "channel_names" also if it uses the old name "modality".

    Args:
        raw_dataset: the folder.
        name: of the file, if it has another.

    Raises:
        UserError: it is absent, no JSON, or lacks what is needed; ``.problems`` has all of it.
    """
    path = Path(raw_dataset) / name
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for without end
            raise OSError("it must be a file")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        what = "is absent" if isinstance(error, FileNotFoundError) else f"is not JSON: {error}"
        fix = "correct the path, or write it as nnU-Net's documentation/dataset_format.md says"
        raise UserError(f"{path} cannot be used:", [Problem(name, what, fix)]) from error
    problems = [replace(problem, where=name) for problem in _content_problems(content)]
    raise_if_any(f"{path} cannot be used:", problems)
    return {"channel_names": content.get("modality"), **content}


def _content_problems(content: Any) -> list[Problem]:
    if not isinstance(content, dict):
        return [Problem(JSON, f"must be an object, got {type(content).__name__}", "rewrite it")]
    content = {"channel_names": content.get("modality"), **content}
    needed: dict[str, type] = {"channel_names": dict, "labels": dict, "numTraining": int}
    problems = []
    for key, kind in {**needed, "file_ending": str}.items():
        value = content.get(key)
        if value is None:
            problems.append(Problem(JSON, f"lacks the key {key!r}", "add it"))
        elif not isinstance(value, kind) or (not value and kind is not int):
            what = f"{key!r} must be a non-empty {kind.__name__}, got {value!r}"
            problems.append(Problem(JSON, what, "correct it"))
    if isinstance(content.get("labels"), dict) and content["labels"]:
        problems += _label_problems(content["labels"])
    problems += _listing_problems(content.get("dataset", {}))
    own = (expression_problems(content, JSON), entry_problems(content, JSON))
    return [*problems, *own[0], *own[1], *_domain_problems(content)]


def _domain_problems(content: dict[str, Any]) -> Iterator[Problem]:
    """What is wrong with the declaration that the unlabelled images are of another kind."""
    declared = content.get(UNLABELLED_DOMAIN, DOMAINS[0])
    if declared not in DOMAINS:
        what = f"{UNLABELLED_DOMAIN!r} must be one of {', '.join(DOMAINS)}, got {declared!r}"
        yield Problem(JSON, what, "correct it, or leave it out: 'same' is the default")


def _label_problems(labels: dict[str, Any]) -> list[Problem]:
    fix = 'number them 0, 1, 2, ... with "background": 0 and "ignore", if any, last'
    try:
        values = sorted(declared_values(labels))
    except (TypeError, ValueError):
        return [Problem(JSON, f"'labels' must map names to whole numbers, got {labels}", fix)]
    if labels.get("background") != 0:
        what = f"the label 'background' must be 0, got {labels.get('background')!r}"
        return [Problem(JSON, what, fix)]
    if not set(labels) - {*NO_CLASSES}:
        return [Problem(JSON, f"'labels' must name a class, got {labels}", fix)]
    if values != list(range(len(values))):
        return [Problem(JSON, f"the labels must be consecutive, got {values}", fix)]
    if labels.get("ignore", values[-1]) != values[-1]:
        return [Problem(JSON, f"the label 'ignore' must be the highest of {values}", fix)]
    return []


def _listing_problems(listing: Any) -> list[Problem]:
    fix = 'write {"CASE": {"images": ["path", ...], "label": "path"}}'
    if not isinstance(listing, dict):
        return [Problem(JSON, "'dataset' must be an object", fix)]
    bad = [
        case
        for case, entry in listing.items()
        if not isinstance(entry, dict)
        or not isinstance(entry.get("label"), str)
        or not isinstance(entry.get("images"), list)
    ]
    return [
        Problem(JSON, f"'dataset' must give images and label of case {case!r}", fix) for case in bad
    ]


def raw_cases(
    raw_dataset: str | Path, description: dict[str, Any], unlabelled: str
) -> list[RawCase]:
    """All cases: labelled (in imagesTr or listed in ``dataset.json``), unlabelled, test.

    Args:
        raw_dataset: the folder.
        description: from :func:`read_description`.
        unlabelled: name of the folder of unlabelled images.
    """
    root, ending = os.fspath(raw_dataset), description["file_ending"]
    if "dataset" in description:
        cases = [_listed_case(root, *item) for item in sorted(description["dataset"].items())]
    else:
        cases = [
            RawCase(case, "labelled", tuple(files), os.path.join(root, "labelsTr", case + ending))
            for case, files in cases_in(os.path.join(root, "imagesTr"), ending).items()
        ]
    if (partial := AnnotatedClasses.of(description)) is not None:
        cases = [replace(one, unknown_values=partial.unknown_values(one.case)) for one in cases]
    for subset, folder in (("unlabelled", unlabelled), ("test", "imagesTs")):
        found = cases_in(os.path.join(root, folder), ending)
        cases += [RawCase(case, subset, tuple(files)) for case, files in found.items()]
    return cases


def _listed_case(root: str, case: str, entry: dict[str, Any]) -> RawCase:
    """Paths may be absolute, relative to the data set, and hold environment variables."""
    images, label = (
        [os.path.normpath(os.path.join(root, os.path.expandvars(str(path)))) for path in paths]
        for paths in (entry["images"], [entry["label"]])
    )
    return RawCase(case, "labelled", tuple(images), label[0], named_by_channel=False)


@dataclass(frozen=True)
class RawDataset:
    """A raw data set as its ``dataset.json`` and the names of its files describe it, read once.

    A command makes one (:meth:`of`), verifies it and passes it on.

    Args:
        folder: of the data set.
        description: content of ``dataset.json``, with "channel_names" also if it uses the old name.
        cases: labelled, unlabelled, then test, each sorted by identifier.
    """

    folder: Path
    description: dict[str, Any]
    cases: tuple[RawCase, ...]

    @classmethod
    def of(cls, raw_dataset: str | Path | RawDataset) -> RawDataset:
        """The description of a folder; one that was made before is passed through.

        Raises:
            UserError: ``dataset.json`` cannot be used.
        """
        if isinstance(raw_dataset, RawDataset):
            return raw_dataset
        description = read_description(raw_dataset)
        cases = raw_cases(raw_dataset, description, UNLABELLED_IMAGES)
        return cls(Path(raw_dataset), description, tuple(cases))

    @property
    def number(self) -> int:
        """The number of the data set, as in its folder's name."""
        return int(self.folder.name[7:10])

    @property
    def labelled(self) -> set[str]:
        """The identifiers of the labelled cases."""
        return {case.case for case in self.cases if case.subset == "labelled"}

    @property
    def channels(self) -> list[str]:
        """The names of the channels, in the order in which nnU-Net's planner takes them."""
        return [str(name) for name in self.description["channel_names"].values()]

    @property
    def other_domain(self) -> bool:
        """Whether unlabelled images are declared to be of another kind, such as MR to CT."""
        return bool(self.description.get(UNLABELLED_DOMAIN) == "other")

    @cached_property
    def content(self) -> dict[str, Any]:
        """``dataset.json`` as it is, without "channel_names" where it uses the old name."""
        old = self.description.get("modality")
        return {
            key: value
            for key, value in self.description.items()
            if not (key == "channel_names" and value is old)
        }


def relative_to(path: str, root: str) -> str:
    """``path`` within the data set, or in full if it is elsewhere."""
    relative = os.path.relpath(path, root)
    return path if relative.startswith("..") else relative


def layout_problems(
    root: str, description: dict[str, Any], cases: Sequence[RawCase], unlabelled: str
) -> list[Problem]:
    """What the names of files and cases show to be wrong; arguments as in :func:`raw_cases`."""
    ending = description["file_ending"]
    folders = [unlabelled, "imagesTs", *([] if "dataset" in description else ["imagesTr"])]
    return [
        *_training_problems(cases, description["numTraining"], root),
        *_name_problems(root, cases, ending, folders),
        *_unlabelled_problems(root, cases, ending, unlabelled),
        *_own_problems(description, cases),
    ]


def _own_problems(description: dict[str, Any], cases: Iterable[RawCase]) -> Iterator[Problem]:
    """What is wrong with the keys of this package: patients, annotated classes."""
    ids: dict[str, list[str]] = {"labelled": [], "unlabelled": [], "test": []}
    for case in cases:
        ids[case.subset].append(case.case)
    yield from patient_problems(description, ids, JSON)
    yield from case_problems(description, ids, JSON)


def _training_problems(cases: Iterable[RawCase], num_training: int, root: str) -> Iterator[Problem]:
    labelled = [case for case in cases if case.subset == "labelled"]
    if len(labelled) != num_training:
        what = f"'numTraining' must be the number of labelled cases, {len(labelled)}"
        yield Problem(JSON, f"{what}, got {num_training}", "correct it, or add the absent cases")
    for case in labelled:
        if case.label is not None and not os.path.lexists(case.label):
            where = relative_to(case.label, root)
            yield Problem(where, "the file is absent", "add the file or remove its case")


def _name_problems(
    root: str, cases: Iterable[RawCase], ending: str, folders: Sequence[str]
) -> Iterator[Problem]:
    for case in cases:
        what = _wrong_with_id(case.case)
        if what:
            yield Problem(f"case {case.case!r} ({case.subset})", what, "rename its files")
    for folder in folders:
        for name in files_in(os.path.join(root, folder)):
            if name.endswith(ending) and not re.search(r"._\d{4}$", name[: -len(ending)]):
                what = f"images must be named CASE_0000{ending}, CASE_0001{ending}, ..."
                yield Problem(os.path.join(folder, name), what, "rename the file")
        if folder != UNLABELLED_IMAGES:  # there, no other ending is allowed
            yield from _second_files(root, folder, ending)


def _second_files(root: str, folder: str, ending: str) -> Iterator[Problem]:
    """Images beside one of the same name that nnU-Net reads: which one is meant?"""
    names = set(files_in(os.path.join(root, folder)))
    others = tuple(other for other in IMAGE_ENDINGS if not ending.endswith(other))
    for name in sorted(name for name in names if name.endswith(others)):
        stem = name.removesuffix(next(other for other in others if name.endswith(other)))
        if f"{stem}{ending}" in names and not name.endswith(ending):
            what = f"must end with {ending}, which {JSON} declares, as {stem}{ending} beside it"
            yield Problem(os.path.join(folder, name), what, "remove the one that is not meant")


def _wrong_with_id(case: str) -> str | None:
    """Spaces inside an id are fine; nnU-Net takes the preprocessed image CASE_seg for a label."""
    if re.search(r"[/\\]", case) or not case.isprintable():
        return f"a case id must be printable and have no path separators, got {case!r}"
    if case != case.strip():
        return f"a case id must not begin or end with a space, got {case!r}"
    if case.endswith("_seg"):
        return f"a case id must not end with '_seg', which marks labels, got {case!r}"
    return None


def _unlabelled_problems(
    root: str, cases: Iterable[RawCase], ending: str, unlabelled: str
) -> Iterator[Problem]:
    ids: dict[str, set[str]] = {"labelled": set(), "unlabelled": set(), "test": set()}
    for case in cases:
        ids[case.subset].add(case.case)
    used_up = os.path.isfile(os.path.join(root, DISTILLED_FILE))  # all are pseudo-labelled
    if not ids["unlabelled"] and not used_up:
        present = os.path.isdir(os.path.join(root, unlabelled))
        what = f"holds no image CASE_0000{ending}" if present else "the folder is absent"
        yield Problem(unlabelled, what, "put the images that nobody labelled there")
    for name in files_in(os.path.join(root, unlabelled)):
        sidecar = ending in (".tif", ".tiff") and name.endswith(".json")  # holds the spacing
        if not (name.endswith(ending) or name.startswith(".") or sidecar):
            what = f"must end with {ending}, which {JSON} declares"
            yield Problem(f"{unlabelled}/{name}", what, "convert the file, or remove it")
    for case_id in sorted(ids["unlabelled"]):
        yield from _conflicts(root, case_id, ids, ending, unlabelled)


def _conflicts(
    root: str, case: str, ids: dict[str, set[str]], ending: str, unlabelled: str
) -> Iterator[Problem]:
    """An unlabelled case that is something else, too, or has a label."""
    for subset in ("labelled", "test"):
        if case in ids[subset]:
            what = f"case {case!r} is unlabelled and also a {subset} case"
            yield Problem(unlabelled, what, "keep it in one place")
    folders = [LABELS_OF_UNLABELLED, *([] if case in ids["labelled"] else ["labelsTr"])]
    for folder in folders:
        if os.path.lexists(os.path.join(root, folder, case + ending)):
            what = f"is a label of case {case!r}, which is unlabelled"
            fix = "move its images to imagesTr, or the label out of the data set"
            yield Problem(os.path.join(folder, case + ending), what, fix)
