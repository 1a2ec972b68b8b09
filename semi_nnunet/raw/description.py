"""A raw data set as described by ``dataset.json`` and the files of each case."""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from semi_nnunet.raw.classes import (
    ANNOTATED_KEY,
    NON_CLASSES,
    AnnotatedClasses,
    find_annotated_case_problems,
    find_annotation_problems,
    find_region_problems,
    get_declared_values,
)
from semi_nnunet.raw.domains import (
    DOMAIN_KEY,
    find_domain_expression_problems,
    find_domain_problems,
)
from semi_nnunet.raw.folds import (
    PATIENT_KEY,
    find_patient_expression_problems,
    find_patient_problems,
)
from semi_nnunet.raw.layout import (
    DATASET_JSON,
    DISTILLED_FILE,
    UNLABELLED_IMAGES,
    read_dataset_number,
)
from semi_nnunet.raw.lesion_rules import LESIONS_KEY, find_lesion_rule_problems
from semi_nnunet.raw.pieces import ONE_PIECE_KEY, find_one_piece_problems
from semi_nnunet.util.errors import Problem, UserError, printable, raise_if_any
from semi_nnunet.util.names import find_name_defect

logger = logging.getLogger(__name__)

UNLABELLED_LABELS = "labelsUn"  # must not exist: labels of unlabelled images are a mistake
UNLABELLED_DOMAIN = "unlabelled_domain"  # of dataset.json: are unlabelled images of the same kind?
DOMAINS = ("same", "other")
OWN_KEYS = (  # of dataset.json, which nnU-Net ignores and plans do not depend on
    PATIENT_KEY, DOMAIN_KEY, UNLABELLED_DOMAIN, ANNOTATED_KEY, LESIONS_KEY, ONE_PIECE_KEY,
)  # fmt: skip
IMAGE_ENDINGS = (
    ".nii.gz", ".nii", ".mha", ".nrrd", ".gipl", ".png", ".bmp", ".tif", ".tiff",
)  # fmt: skip


@dataclass(frozen=True)
class RawCase:
    """One case of the raw data set.

    Args:
        subset: "labelled", "unlabelled" or "test".
        label: its label file, None for unlabelled and test cases.
        named_by_channel: the images are named CASE_0000, CASE_0001, ...; otherwise dataset.json
            lists them.
        unknown_values: values that its label may not hold, as it does not annotate their classes.
    """

    case: str
    subset: str
    images: tuple[str, ...]
    label: str | None = None
    named_by_channel: bool = True
    unknown_values: frozenset[int] = frozenset()


@dataclass(frozen=True)
class RawDataset:
    """A raw data set, read once. A command makes it with :meth:`of` and passes it on.

    Args:
        description: content of ``dataset.json``; "channel_names" also replaces the old name
            "modality".
        cases: labelled, unlabelled, then test, each sorted by identifier.
    """

    folder: Path
    description: dict[str, Any]
    cases: tuple[RawCase, ...]

    @classmethod
    def of(cls, raw_dataset: str | Path | RawDataset) -> RawDataset:
        """Read a folder; return a :class:`RawDataset` unchanged.

        Raises:
            UserError: ``dataset.json`` cannot be used.
        """
        if isinstance(raw_dataset, RawDataset):
            return raw_dataset
        description = read_description(raw_dataset)
        cases = list_raw_cases(raw_dataset, description, UNLABELLED_IMAGES)
        return cls(Path(raw_dataset), description, tuple(cases))

    @property
    def number(self) -> int:
        """Number of the data set in its folder's name."""
        return read_dataset_number(self.folder)

    @property
    def labelled(self) -> set[str]:
        """Identifiers of the labelled cases."""
        return {case.case for case in self.cases if case.subset == "labelled"}

    @property
    def channels(self) -> list[str]:
        """Names of the channels, in the order of nnU-Net's planner."""
        return [str(name) for name in self.description["channel_names"].values()]

    @property
    def other_domain(self) -> bool:
        """Whether the unlabelled images are declared to be of another kind, such as MR and CT."""
        return bool(self.description.get(UNLABELLED_DOMAIN) == "other")

    @cached_property
    def content(self) -> dict[str, Any]:
        """``dataset.json`` as it is, without "channel_names" if the file has the old name."""
        modality = self.description.get("modality")
        return {
            key: value
            for key, value in self.description.items()
            if not (key == "channel_names" and value is modality)
        }


# ---- files of cases ----


def find_cases(folder: str | Path, file_ending: str) -> dict[str, list[str]]:
    """Return case -> its sorted channel files, in O(number of files); nnU-Net's own is quadratic.

    Only names such as ``CASE_0000.ending`` count, and no hidden files, such as those of macOS. A
    missing folder gives {}. A subfolder with such a name counts, too (unpacking may make one), so
    that the check of its case reports it.
    """
    pattern = re.compile(r"(.+)_\d{4}" + re.escape(file_ending), re.DOTALL)
    cases: dict[str, list[str]] = {}
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    for name in names:
        if (match := pattern.fullmatch(name)) and not name.startswith("."):
            cases.setdefault(match[1], []).append(os.path.join(folder, name))
    return cases


def find_misnamed_images(
    folder: str | Path, cases: Mapping[str, Sequence[str]], endings: Sequence[str] = IMAGE_ENDINGS
) -> Iterator[Problem]:
    """Yield a problem for each image that is not named CASE_0000; hidden files are ignored."""
    images = {os.path.basename(file) for files in cases.values() for file in files}
    for name in list_files(folder):
        if name.lower().endswith(tuple(endings)) and name not in images:
            defect = "must be named CASE_0000 and have the ending that the model was trained with"
            yield Problem(name, defect, "name it so, or convert it")


def warn_of_misnamed_images(
    folder: str | Path, cases: Mapping[str, Sequence[str]], ending: str
) -> None:
    """Log a warning for each image with this ending that is left out because of its name."""
    for problem in find_misnamed_images(folder, cases, [ending]):
        logger.warning(printable(f"left out: {problem}"))


def list_files(folder: str | Path) -> list[str]:
    """Return the sorted names of visible files and links, also dangling ones.

    A missing folder gives [].
    """
    if not os.path.isdir(folder):
        return []
    with os.scandir(folder) as entries:
        visible = (entry for entry in entries if not entry.name.startswith("."))
        return sorted(entry.name for entry in visible if not _is_folder(entry))


def list_cases(folder: str | Path, ending: str) -> list[str]:
    """Return the sorted cases of a folder of labels or predictions, one file ``CASE.ending`` each.

    Hidden files, such as those of macOS, are no cases; a missing folder gives [].
    """
    names = list_files(folder)
    return sorted(name.removesuffix(ending) for name in names if name.endswith(ending))


def list_mac_files(folder: str | Path, ending: str) -> list[str]:
    """Return the sorted names of the files ``._NAME`` that macOS writes next to images."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return sorted(name for name in names if name.startswith("._") and name.endswith(ending))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether it is a folder or a link to one; follows only links, which may be loops."""
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def without_own_keys(description: Mapping[str, Any]) -> dict[str, Any]:
    """Return dataset.json without the keys of this package."""
    return {key: value for key, value in description.items() if key not in OWN_KEYS}


def path_within(path: str, root: str) -> str:
    """Return ``path`` relative to the data set, or unchanged if it lies elsewhere."""
    relative = os.path.relpath(path, root)
    return path if relative.startswith("..") else relative


def list_raw_cases(
    raw_dataset: str | Path, description: dict[str, Any], unlabelled: str
) -> list[RawCase]:
    """Return all cases: labelled (of imagesTr or listed in ``dataset.json``), unlabelled, test."""
    root, ending = os.fspath(raw_dataset), description["file_ending"]
    if "dataset" in description:
        cases = [_listed_case(root, *item) for item in sorted(description["dataset"].items())]
    else:
        cases = [
            RawCase(case, "labelled", tuple(files), os.path.join(root, "labelsTr", case + ending))
            for case, files in find_cases(os.path.join(root, "imagesTr"), ending).items()
        ]
    if (annotated := AnnotatedClasses.of(description)) is not None:
        cases = [
            replace(case, unknown_values=annotated.unknown_values(case.case)) for case in cases
        ]
    for subset, folder in (("unlabelled", unlabelled), ("test", "imagesTs")):
        images = find_cases(os.path.join(root, folder), ending)
        cases += [RawCase(case, subset, tuple(files)) for case, files in images.items()]
    return cases


def _listed_case(root: str, case: str, entry: dict[str, Any]) -> RawCase:
    """Return a case of ``dataset.json``, whose paths may hold environment variables."""
    images, label = (
        [os.path.normpath(os.path.join(root, os.path.expandvars(str(path)))) for path in paths]
        for paths in (entry["images"], [entry["label"]])
    )
    return RawCase(case, "labelled", tuple(images), label[0], named_by_channel=False)


# ---- dataset.json ----


def read_description(raw_dataset: str | Path, name: str = DATASET_JSON) -> dict[str, Any]:
    """Return ``dataset.json``, with "channel_names" even if the file has the old name "modality".

    Raises:
        UserError: with every problem, if the file is missing, no JSON or incomplete.
    """
    path = Path(raw_dataset) / name
    try:
        if path.exists() and not path.is_file():  # reading a pipe would never end
            raise OSError("it must be a file")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        defect = "is absent" if isinstance(error, FileNotFoundError) else f"is not JSON: {error}"
        fix = "correct the path, or write it as nnU-Net's documentation/dataset_format.md says"
        raise UserError(f"{path} cannot be used:", [Problem(name, defect, fix)]) from error
    problems = [replace(problem, where=name) for problem in _find_content_problems(content)]
    raise_if_any(f"{path} cannot be used:", problems)
    return {"channel_names": get_channel_names(content), **content}


def get_channel_names(description: Mapping[str, Any]) -> dict[str, str]:
    """Return the names of the channels in a ``dataset.json``, whose old key is "modality".

    >>> get_channel_names({"modality": {"0": "MR"}})
    {'0': 'MR'}
    """
    return description.get("channel_names") or description.get("modality") or {}


def _find_content_problems(content: Any) -> Iterator[Problem]:
    if not isinstance(content, dict):
        defect = f"must be an object, got {type(content).__name__}"
        yield Problem(DATASET_JSON, defect, "rewrite it")
        return
    content = {"channel_names": content.get("modality"), **content}
    required = {"channel_names": dict, "labels": dict, "numTraining": int, "file_ending": str}
    for key, value_type in required.items():
        value = content.get(key)
        if value is None:
            yield Problem(DATASET_JSON, f"lacks the key {key!r}", "add it")
        elif not isinstance(value, value_type) or (not value and value_type is not int):
            defect = f"{key!r} must be a non-empty {value_type.__name__}, got {value!r}"
            yield Problem(DATASET_JSON, defect, "correct it")
    if isinstance(content.get("labels"), dict) and content["labels"]:
        yield from _find_label_problem(content["labels"])
    yield from _find_listing_problems(content.get("dataset", {}))
    yield from find_patient_expression_problems(content, DATASET_JSON)
    yield from find_domain_expression_problems(content, DATASET_JSON)
    yield from find_annotation_problems(content, DATASET_JSON)
    yield from find_lesion_rule_problems(content, DATASET_JSON)
    yield from find_one_piece_problems(content, DATASET_JSON)
    domain = content.get(UNLABELLED_DOMAIN, DOMAINS[0])
    if domain not in DOMAINS:
        defect = f"{UNLABELLED_DOMAIN!r} must be one of {', '.join(DOMAINS)}, got {domain!r}"
        yield Problem(DATASET_JSON, defect, "correct it, or leave it out: 'same' is the default")


def find_channel_name_problems(channels: dict[str, Any]) -> Iterator[Problem]:
    """Yield a problem unless channels are numbered as their files; nnU-Net follows their order."""
    numbers = [str(number) for number in range(len(channels))]
    if list(channels) != numbers or not all(isinstance(name, str) for name in channels.values()):
        texts = [[str(key), str(value)] for key, value in channels.items()]
        names = [next((t for t in pair if not t.isdecimal()), "NAME") for pair in texts]
        example = json.dumps(dict(zip(numbers, names, strict=True)))
        defect = f"'channel_names' must map the numbers {', '.join(numbers)}, in this order, to "
        yield Problem(DATASET_JSON, f"{defect}names, got {channels}", f"write {example}")


def _find_label_problem(labels: dict[str, Any]) -> Iterator[Problem]:
    fix = 'number them 0, 1, 2, ... with "background": 0 and "ignore", if any, last'
    defect = ""
    try:
        values = sorted(get_declared_values(labels))
    except (TypeError, ValueError):
        yield Problem(DATASET_JSON, f"'labels' must map names to whole numbers, got {labels}", fix)
        return
    if labels.get("background") != 0:
        defect = f"the label 'background' must be 0, got {labels.get('background')!r}"
    elif not set(labels) - {*NON_CLASSES}:
        defect = f"'labels' must name a class, got {labels}"
    elif values != list(range(len(values))):
        defect = f"the labels must be consecutive, got {values}"
    elif labels.get("ignore", values[-1]) != values[-1]:
        defect = f"the label 'ignore' must be the highest of {values}"
    if defect:
        yield Problem(DATASET_JSON, defect, fix)


def _find_listing_problems(listing: Any) -> Iterator[Problem]:
    fix = 'write {"CASE": {"images": ["path", ...], "label": "path"}}'
    if not isinstance(listing, dict):
        yield Problem(DATASET_JSON, "'dataset' must be an object", fix)
        return
    for case, entry in listing.items():
        if (
            not isinstance(entry, dict)
            or not isinstance(entry.get("label"), str)
            or not isinstance(entry.get("images"), list)
        ):
            defect = f"'dataset' must give images and label of case {case!r}"
            yield Problem(DATASET_JSON, defect, fix)


# ---- checks of dataset.json against the names of the files ----


def find_naming_problems(raw: RawDataset) -> Iterator[Problem]:
    """Yield the problems that the names of files and cases show."""
    ids: dict[str, list[str]] = {"labelled": [], "unlabelled": [], "test": []}
    for case in raw.cases:
        ids[case.subset].append(case.case)
    folders = [UNLABELLED_IMAGES, "imagesTs"]
    folders += [] if "dataset" in raw.description else ["imagesTr"]
    files = {folder: set(list_files(raw.folder / folder)) for folder in folders}
    yield from find_channel_name_problems(raw.description["channel_names"])
    yield from _find_unprintable_names(raw)
    yield from find_region_problems(raw.description, DATASET_JSON)
    yield from _find_mac_problem(raw, folders)
    yield from _find_training_problems(raw)
    yield from _find_name_problems(raw, files)
    subsets = {subset: set(cases) for subset, cases in ids.items()}
    yield from _find_unlabelled_problems(raw, subsets, files[UNLABELLED_IMAGES])
    yield from find_patient_problems(raw.description, ids, DATASET_JSON)
    cases = [case for subset_cases in ids.values() for case in subset_cases]
    yield from find_domain_problems(raw.description, cases, DATASET_JSON)
    yield from find_annotated_case_problems(raw.description, ids, DATASET_JSON)


def _find_unprintable_names(raw: RawDataset) -> Iterator[Problem]:
    names = {"channel_names": raw.channels, "labels": raw.description["labels"]}
    for key, listed in names.items():
        for name in listed:
            if not name.isprintable():
                defect = f"a name of {key!r} {find_name_defect(name)}"
                yield Problem(DATASET_JSON, defect, "write it without them")


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
    has_ignored_voxels = "ignore" in raw.description["labels"]  # they are unlabelled, too
    if not (ids["unlabelled"] or all_pseudo_labelled or has_ignored_voxels):
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
