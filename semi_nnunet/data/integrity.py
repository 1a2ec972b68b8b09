"""Is a raw nnU-Net data set with unlabelled images fit for use? Finds every bad file in one pass.

Beside nnU-Net's imagesTr, labelsTr and imagesTs there is imagesUn: images nobody labelled, with the
same names (``CASE_0000.ending``) and channels as imagesTr.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
from tqdm import tqdm

from semi_nnunet.data.checked import CaseReport, Known, source_of
from semi_nnunet.data.declared_labels import declared_values
from semi_nnunet.data.file_bytes import COPY_AGAIN, short_reason
from semi_nnunet.data.image_files import (
    READER_SPACING_RTOL,
    SPACING_RTOL,
    FileFacts,
    geometry_difference,
    inspect_file,
)
from semi_nnunet.data.layout import UNLABELLED_IMAGES
from semi_nnunet.data.raw_description import (
    IMAGE_ENDINGS,
    JSON,
    RawCase,
    RawDataset,
    cases_in,
    layout_problems,
    relative_to,
)
from semi_nnunet.util.errors import Problem, UserError
from semi_nnunet.util.parallel import in_processes

__all__ = [
    "CaseReport",
    "cases_in",
    "check_dataset",
    "dataset_problems",
    "duplicate_problems",
    "warnings_of",
]

NAMED = 10  # cases in a warning
EXAMPLES_TRIED = 10  # files shown to nnU-Net's choice of a reader, as the first may be the bad one


@dataclass(frozen=True)
class _Rules:
    """What all cases of a data set are held to."""

    root: str
    reader_class: type[Any]
    num_channels: int
    label_values: frozenset[int]
    file_ending: str

    def __str__(self) -> str:
        reader, values = self.reader_class.__qualname__, sorted(self.label_values)
        return f"{self.root} {reader} {self.num_channels} {values} {self.file_ending}"


# ---- cases ----


def check_dataset(
    raw_dataset: str | Path | RawDataset,
    num_processes: int,
    show_progress: bool = True,
    known: Known | None = None,
) -> list[CaseReport]:
    """Read every image of imagesTr, imagesUn and imagesTs, and every label, once.

    Args:
        raw_dataset: the folder, or its description.
        num_processes: up to 1 means in this process.
        show_progress: draw a bar, if stderr is a terminal.
        known: reports of earlier; they hold where the bytes of a case's files are the same.

    Returns:
        one report per case: labelled, unlabelled, then test, each sorted by identifier.

    Raises:
        UserError: ``dataset.json`` cannot be used, no reader of nnU-Net's fits, or a worker died.
    """
    raw = RawDataset.of(raw_dataset)
    description, cases = raw.description, raw.cases
    rules = _Rules(
        root=os.fspath(raw.folder),
        reader_class=reader_class(description, [file for case in cases for file in case.images]),
        num_channels=len(description["channel_names"]),
        label_values=frozenset(declared_values(description["labels"])),
        file_ending=description["file_ending"],
    )
    jobs = [(case, (known or {}).get((case.subset, case.case))) for case in cases]
    results = in_processes(partial(_known_or_new, rules), jobs, num_processes, "checks images")
    hidden = None if show_progress else True  # None: hidden unless stderr is a terminal
    return list(tqdm(results, total=len(cases), desc="checking", unit="case", disable=hidden))


def reader_class(description: dict[str, Any], files: Sequence[str]) -> type[Any]:
    """nnU-Net's choice, by the first file that any of its readers can open."""
    existing = (file for file in files if os.path.isfile(file) and os.path.getsize(file))
    examples: list[str | None] = [*itertools.islice(existing, EXAMPLES_TRIED)]
    for example in [*examples, None]:
        printed = io.StringIO()  # nnU-Net prints tracebacks of the readers that do not fit
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            try:
                return determine_reader_writer_from_dataset_json(
                    description, example_file=example, verbose=False
                )
            except RuntimeError:
                continue
    what = f"nnU-Net has no reader for 'file_ending' {description['file_ending']!r}"
    fix = f"use {', '.join(IMAGE_ENDINGS[:-1])} or {IMAGE_ENDINGS[-1]}"
    raise UserError(f"{JSON} cannot be used:", [Problem(JSON, what, fix)])


def image_problems(
    folder: str | Path,
    description: Mapping[str, Any],
    reader: type[Any],
    case: str,
    images: Sequence[str],
) -> list[Problem]:
    """What is wrong with the images of one case of a folder: each file, and all of them together.

    Args:
        folder: of the images; files are named as they lie in it.
        description: content of dataset.json.
        reader: of nnU-Net.
        case: its identifier.
        images: its channel files.
    """
    count, ending = len(description["channel_names"]), description["file_ending"]
    rules = _Rules(os.fspath(folder), reader, count, frozenset(), ending)
    return list(_safe_report(rules, RawCase(case, "unlabelled", tuple(images))).problems)


def _known_or_new(rules: _Rules, job: tuple[RawCase, CaseReport | None]) -> CaseReport:
    case, known = job
    label = () if case.label is None else (case.label,)
    held_to = f"{rules} {case.named_by_channel}"
    if case.unknown_values:
        held_to += f" {sorted(case.unknown_values)}"
    source = source_of((*case.images, *label), held_to)
    if source and known is not None and known.source == source:
        return known
    return replace(_safe_report(rules, case), source=source)


def _safe_report(rules: _Rules, case: RawCase) -> CaseReport:
    try:
        return _report(rules, case)
    except Exception as error:  # one strange case must not end the check of the others
        what = f"cannot be checked: {short_reason(error)}"
        problem = Problem(f"case {case.case} ({case.subset})", what, COPY_AGAIN)
        return CaseReport(case.case, case.subset, None, (problem,))


def _report(rules: _Rules, case: RawCase) -> CaseReport:
    names = [relative_to(path, rules.root) for path in case.images]
    inspect = partial(
        inspect_file, reader_class=rules.reader_class, num_channels=rules.num_channels
    )
    facts = [inspect(path, name) for path, name in zip(case.images, names, strict=True)]
    problems = [problem for fact in facts for problem in fact.problems]
    problems += _channel_problems(rules, case, facts) + _mismatches(names, facts)
    only_background = False
    if case.label is not None:
        where = relative_to(case.label, rules.root)
        label = inspect(
            case.label,
            where,
            label_values=rules.label_values,
            unknown_values=case.unknown_values,
        )
        problems += [*label.problems, *_label_mismatch(where, label, names, facts)]
        only_background = label.only_background
    content_hash = None
    if facts and all(fact.geometry for fact in facts):
        digests = "".join(digest for fact in facts for digest in fact.channel_digests)
        content_hash = hashlib.sha256(digests.encode()).hexdigest()
    geometry = next((fact.geometry for fact in facts if fact.geometry), None)
    quantiles = tuple(channel for fact in facts for channel in fact.quantiles)
    return CaseReport(
        case.case, case.subset, content_hash, tuple(problems), geometry, quantiles, only_background
    )


def _channel_problems(rules: _Rules, case: RawCase, facts: Sequence[FileFacts]) -> list[Problem]:
    """Channel files that are missing or too many; a colour file holds several channels."""
    per_file = max((len(fact.channel_digests) for fact in facts if fact.geometry), default=0)
    if per_file == 0 and issubclass(rules.reader_class, NaturalImage2DIO):
        return []  # unreadable, and reported as such; may be colour or not
    if rules.num_channels % max(per_file, 1):
        return []  # reported with the file
    wanted = rules.num_channels // max(per_file, 1)
    if not case.named_by_channel:
        if len(case.images) == wanted:
            return []
        what = f"case {case.case!r} must list {wanted} images, got {len(case.images)}"
        return [Problem(JSON, what, "correct its entry in 'dataset'")]
    folder = os.path.dirname(relative_to(case.images[0], rules.root))
    found = {int(path[: -len(rules.file_ending)][-4:]) for path in case.images}
    declared = f"{JSON} declares {rules.num_channels} channels"
    problems = []
    for channel in sorted(found ^ set(range(wanted))):
        where = os.path.join(folder, f"{case.case}_{channel:04d}{rules.file_ending}")
        what, fix = (
            ("is a channel too many", "remove the file")
            if channel in found
            else ("this channel is missing", "add the file, or remove the case")
        )
        problems.append(Problem(where, f"{what}: {declared}", f"{fix}, or correct {JSON}"))
    return problems


def _mismatches(names: Sequence[str], facts: Sequence[FileFacts]) -> list[Problem]:
    """Channels that do not lie on the voxels of the case's first readable channel."""
    pairs = zip(names, facts, strict=True)
    readable = [(name, fact, fact.geometry) for name, fact in pairs if fact.geometry]
    problems = []
    for name, fact, place in readable[1:]:
        first_name, first, first_place = readable[0]
        difference = geometry_difference(place, first_place, READER_SPACING_RTOL)
        if len(fact.channel_digests) != len(first.channel_digests):
            difference = "; ".join(filter(None, ["number of channels", difference]))
        if difference:
            what = f"channels of a case must agree, but {first_name} differs: {difference}"
            problems.append(Problem(name, what, "resample the channels to one grid"))
    return problems


def _label_mismatch(
    where: str, label: FileFacts, names: Sequence[str], facts: Sequence[FileFacts]
) -> Iterator[Problem]:
    """The label must lie on the image's voxels."""
    for name, fact in zip(names, facts, strict=True):
        if label.geometry and fact.geometry:
            difference = geometry_difference(label.geometry, fact.geometry, SPACING_RTOL)
            if difference:
                what = f"label must lie on the voxels of {name}, but has {difference}"
                yield Problem(where, what, "resample the label to the image, or mend the headers")
            return


# ---- the data set as a whole ----


def dataset_problems(raw_dataset: str | Path | RawDataset) -> list[Problem]:
    """Problems of the data set as a whole, found from ``dataset.json`` and the file names alone."""
    try:
        raw = RawDataset.of(raw_dataset)
        reader_class(raw.description, [])
    except UserError as error:
        return list(error.problems)
    return layout_problems(os.fspath(raw.folder), raw.description, raw.cases, UNLABELLED_IMAGES)


def duplicate_problems(reports: Sequence[CaseReport]) -> dict[str, Problem]:
    """Unlabelled images whose voxels equal those of a labelled or test image: leakage.

    Equal unlabelled images are no error.

    Returns:
        the unlabelled case -> its problem.
    """
    known = {
        report.content_hash: report
        for report in reports
        if report.content_hash is not None and report.subset != "unlabelled"
    }
    problems = {}
    for report in reports:
        twin = known.get(report.content_hash) if report.content_hash else None
        if report.subset == "unlabelled" and twin is not None:
            what = f"its voxels equal those of the {twin.subset} case {twin.case!r}, which it leaks"
            where = f"{UNLABELLED_IMAGES}: case {report.case}"
            problems[report.case] = Problem(where, what, f"remove it from {UNLABELLED_IMAGES}")
    return problems


def warnings_of(reports: Sequence[CaseReport]) -> Iterator[str]:
    """What is strange and may be meant so: empty labels, a single one, labelled images as test."""
    labelled = [report for report in reports if report.subset == "labelled"]
    if len(labelled) == 1:
        what = f"a fold needs at least 2 labelled cases, got 1 ({labelled[0].case})"
        yield f"{what}. Fix: train fold 'all', or label another case"
    if empty := [report.case for report in labelled if report.only_background]:
        what = f"{len(empty)} of {len(labelled)} labels show no class, all voxels are 0: "
        what += f"{_listed(empty)}. They are kept, as labels of background"
        fix = f"if nobody has labelled the images, move them to {UNLABELLED_IMAGES}"
        yield f"{what}. Fix: {fix}"
    known = {report.content_hash: report.case for report in labelled if report.content_hash}
    tests = [report for report in reports if report.subset == "test"]
    twins = [
        f"{report.case} (labelled: {known[report.content_hash]})"
        for report in tests
        if report.content_hash in known
    ]
    if twins:
        what = f"the voxels of {len(twins)} of {len(tests)} test images equal those of a labelled "
        what += f"image: {_listed(twins)}. What is measured on them says nothing"
        yield f"{what}. Fix: remove them from imagesTs"


def _listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
