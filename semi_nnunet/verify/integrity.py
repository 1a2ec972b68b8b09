"""Verification of a raw data set: find every bad file in one pass.

In addition to nnU-Net's imagesTr, labelsTr and imagesTs there is imagesUn: unlabelled images with
the same names (``CASE_0000.ending``) and channels as imagesTr.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO
from tqdm import tqdm

from semi_nnunet.raw.classes import AnnotatedClasses, get_declared_values
from semi_nnunet.raw.description import (
    RawCase,
    RawDataset,
    find_naming_problems,
    path_within,
)
from semi_nnunet.raw.layout import DATASET_JSON, UNLABELLED_IMAGES, find_unfinished_round
from semi_nnunet.raw.readers import (
    COPY_AGAIN,
    READER_SPACING_RTOL,
    choose_reader,
    describe_geometry_difference,
    find_misplaced_label,
    get_spacing_file,
)
from semi_nnunet.util.errors import Problem, UserError, shorten_reason
from semi_nnunet.util.names import format_count, list_first
from semi_nnunet.util.parallel import in_processes
from semi_nnunet.verify.image_files import FileFacts, inspect_file
from semi_nnunet.verify.reports import (
    CaseReport,
    KnownReports,
    compute_report_source,
    list_files_of,
    record_files,
)

logger = logging.getLogger(__name__)
NAMED = 10  # cases in a warning


def verify_dataset(
    raw_dataset: Path | RawDataset,
    num_processes: int,
    skip_bad: bool,
    earlier: KnownReports | None = None,
) -> tuple[list[CaseReport], dict[str, list[str]]]:
    """Check the whole raw data set, and warn of unusual but usable cases.

    Args:
        skip_bad: skip bad unlabelled cases instead of raising.
        earlier: earlier reports, see :mod:`semi_nnunet.verify.reports`.

    Returns:
        The report of every case, and the skipped unlabelled cases -> their problems.

    Raises:
        UserError: with all problems except the ones skipped by ``skip_bad``.
    """
    try:
        raw = RawDataset.of(raw_dataset)
    except UserError as error:
        raise UserError(f"{raw_dataset} cannot be used:", error.problems) from error
    general = find_dataset_problems(raw)
    if any(problem.where.endswith(DATASET_JSON) for problem in general):
        raise UserError(f"{raw.folder} cannot be used:", general)
    reports = check_dataset(raw, num_processes, earlier=earlier)
    bad: dict[str, list[Problem]] = {}
    for report in reports:
        if report.subset == "unlabelled" and report.problems:
            bad[report.case] = list(report.problems)
    for case, problem in find_duplicate_problems(reports).items():
        bad.setdefault(case, []).append(problem)
    serious = [p for report in reports if report.subset != "unlabelled" for p in report.problems]
    of_unlabelled = [problem for problems in bad.values() for problem in problems]
    blocking = general + serious + ([] if skip_bad else of_unlabelled)
    blocking += find_empty_labels_problem(raw, reports)
    # a missing file is noticed more than once
    blocking = list({(problem.where, problem.what): problem for problem in blocking}.values())
    if blocking:
        hint = " (--skip-bad skips bad unlabelled cases)"
        helps = bool(of_unlabelled) and not skip_bad
        number = format_count(blocking, "problem")
        raise UserError(f"{number} in {raw.folder}{hint * helps}:", blocking)
    if bad:
        logger.info("skipped %d bad unlabelled cases:", len(bad))
        for problem in of_unlabelled:
            logger.info("  %s", problem)
    if (annotated := AnnotatedClasses.of(raw.description)) is not None:
        logger.info(annotated.summarise(sorted(raw.labelled)))
    for warning in find_dataset_warnings(reports):
        logger.warning("WARNING: %s", warning)
    return reports, {case: [str(problem) for problem in bad[case]] for case in bad}


@dataclass(frozen=True)
class _Rules:
    """The rules that all cases of a data set must satisfy."""

    root: str
    reader_class: type[Any]
    num_channels: int
    label_values: frozenset[int]
    file_ending: str
    spacing_apart: bool = False  # some images have their spacing in a file of its own

    def __str__(self) -> str:
        reader, values = self.reader_class.__qualname__, sorted(self.label_values)
        rules = f"{self.root} {reader} {self.num_channels} {values} {self.file_ending}"
        return f"{rules} {self.spacing_apart}" if self.spacing_apart else rules


# ---- cases ----


def check_dataset(
    raw_dataset: str | Path | RawDataset,
    num_processes: int,
    show_progress: bool = True,
    earlier: KnownReports | None = None,
) -> list[CaseReport]:
    """Read every image of imagesTr, imagesUn and imagesTs, and every label, once.

    Args:
        num_processes: up to 1 means in this process.
        show_progress: draw a bar, if stderr is a terminal.
        earlier: earlier reports, reused for cases whose files have the same bytes.

    Returns:
        One report per case: labelled, unlabelled, then test, each sorted by identifier.

    Raises:
        UserError: ``dataset.json`` cannot be used, nnU-Net has no reader, or a worker died.
    """
    raw = RawDataset.of(raw_dataset)
    description, cases = raw.description, raw.cases
    rules = _Rules(
        root=os.fspath(raw.folder),
        reader_class=choose_reader(description, [file for case in cases for file in case.images]),
        num_channels=len(description["channel_names"]),
        label_values=frozenset(get_declared_values(description["labels"])),
        file_ending=description["file_ending"],
    )
    if rules.reader_class is Tiff3DIO:
        images = (image for case in cases for image in case.images)
        has_spacing = any(get_spacing_file(image, is_label=False).is_file() for image in images)
        rules = replace(rules, spacing_apart=has_spacing)
    jobs = [(case, (earlier or {}).get((case.subset, case.case))) for case in cases]
    results = in_processes(partial(_reuse_or_report, rules), jobs, num_processes, "checks images")
    hidden = None if show_progress else True  # None: hidden unless stderr is a terminal
    return list(tqdm(results, total=len(cases), desc="checking", unit="case", disable=hidden))


def find_image_problems(
    folder: str | Path,
    description: Mapping[str, Any],
    reader: type[Any],
    case: str,
    images: Sequence[str],
) -> list[Problem]:
    """Return the problems of the images of one case: of each file, and of all together.

    Args:
        folder: of the images; the problems name files relative to it.
    """
    count, ending = len(description["channel_names"]), description["file_ending"]
    rules = _Rules(os.fspath(folder), reader, count, frozenset(), ending)
    return list(_report_safely(rules, RawCase(case, "unlabelled", tuple(images))).problems)


def _reuse_or_report(rules: _Rules, job: tuple[RawCase, CaseReport | None]) -> CaseReport:
    case, earlier = job
    rules_of_case = f"{rules} {case.named_by_channel}"
    if case.unknown_values:
        rules_of_case += f" {sorted(case.unknown_values)}"
    files = list_files_of(case)
    records = record_files(files)
    source = compute_report_source(files, records, rules_of_case)
    if source and earlier is not None and earlier.source == source:
        return replace(earlier, records=records)
    return replace(_report_safely(rules, case), source=source, records=records)


def _report_safely(rules: _Rules, case: RawCase) -> CaseReport:
    try:
        return _report(rules, case)
    except Exception as error:  # one unusual case must not stop the check of the others
        defect = f"cannot be checked: {shorten_reason(error)}"
        problem = Problem(f"case {case.case} ({case.subset})", defect, COPY_AGAIN)
        return CaseReport(case.case, case.subset, None, (problem,))


def _report(rules: _Rules, case: RawCase) -> CaseReport:
    names = [path_within(path, rules.root) for path in case.images]
    inspect = partial(
        inspect_file, reader_class=rules.reader_class, num_channels=rules.num_channels
    )
    facts = [inspect(path, name) for path, name in zip(case.images, names, strict=True)]
    problems = [problem for fact in facts for problem in fact.problems]
    problems += _find_channel_number_problems(rules, case, facts)
    problems += _find_channel_mismatches(names, facts)
    problems += _find_missing_spacing(rules, case)
    only_background = False
    if case.label is not None:
        file_name = path_within(case.label, rules.root)
        values: dict[str, Any] = {
            "label_values": rules.label_values,
            "unknown_values": case.unknown_values,
        }
        label = inspect(case.label, file_name, **values)
        problems += [*label.problems, *_find_label_mismatch(file_name, label, names, facts)]
        only_background = label.only_background
    content_hash = None
    if facts and all(fact.geometry for fact in facts):
        digests = "".join(digest for fact in facts for digest in fact.channel_digests)
        content_hash = hashlib.sha256(digests.encode()).hexdigest()
    geometry = next((fact.geometry for fact in facts if fact.geometry), None)
    quantiles = tuple(channel for fact in facts for channel in fact.quantiles)
    return CaseReport(
        case.case, case.subset, content_hash, tuple(problems), geometry, quantiles, only_background,
        thumbnail=next((fact.thumbnail for fact in facts), ""),
    )  # fmt: skip


def _find_channel_number_problems(
    rules: _Rules, case: RawCase, facts: Sequence[FileFacts]
) -> list[Problem]:
    """Return missing and surplus channel files; a colour file holds several channels."""
    per_file = max((len(fact.channel_digests) for fact in facts if fact.geometry), default=0)
    if per_file == 0 and issubclass(rules.reader_class, NaturalImage2DIO):
        return []  # unreadable, which is reported elsewhere; it may be colour or not
    if rules.num_channels % max(per_file, 1):
        return []  # reported with the file
    required = rules.num_channels // max(per_file, 1)
    if not case.named_by_channel:
        if len(case.images) == required:
            return []
        defect = f"case {case.case!r} must list {required} images, got {len(case.images)}"
        return [Problem(DATASET_JSON, defect, "correct its entry in 'dataset'")]
    folder = os.path.dirname(path_within(case.images[0], rules.root))
    present = {int(path[: -len(rules.file_ending)][-4:]) for path in case.images}
    declared = f"{DATASET_JSON} declares {rules.num_channels} channels"
    problems = []
    for channel in sorted(present ^ set(range(required))):
        file_name = os.path.join(folder, f"{case.case}_{channel:04d}{rules.file_ending}")
        if channel in present:
            defect, fix = "is a channel too many", "remove the file"
        else:
            defect, fix = "this channel is missing", "add the file, or remove the case"
        problems.append(
            Problem(file_name, f"{defect}: {declared}", f"{fix}, or correct {DATASET_JSON}")
        )
    return problems


def _find_missing_spacing(rules: _Rules, case: RawCase) -> Iterator[Problem]:
    """Yield images and labels without the file that holds their spacing, if others have one."""
    if not rules.spacing_apart:
        return
    files = [(image, False) for image in case.images[:1]]
    files += [] if case.label is None else [(case.label, True)]
    for path, is_label in files:
        if not (spacing := get_spacing_file(path, is_label)).is_file():
            name = path_within(str(spacing), rules.root)
            defect = f"must hold the spacing of {os.path.basename(path)}, as others have it"
            fix = 'write {"spacing": [Z, Y, X]} in mm; without the file nnU-Net takes 1 mm'
            yield Problem(name, f"{defect}, but is absent", fix)


def _find_channel_mismatches(names: Sequence[str], facts: Sequence[FileFacts]) -> list[Problem]:
    """Return the channels whose grid differs from that of the case's first readable channel."""
    pairs = zip(names, facts, strict=True)
    readable = [(name, fact, fact.geometry) for name, fact in pairs if fact.geometry]
    problems = []
    for name, fact, geometry in readable[1:]:
        first_name, first, first_geometry = readable[0]
        difference = describe_geometry_difference(geometry, first_geometry, READER_SPACING_RTOL)
        if len(fact.channel_digests) != len(first.channel_digests):
            difference = "; ".join(filter(None, ["number of channels", difference]))
        if difference:
            defect = f"channels of a case must agree, but {first_name} differs: {difference}"
            problems.append(Problem(name, defect, "resample the channels to one grid"))
    return problems


def _find_label_mismatch(
    file_name: str, label: FileFacts, names: Sequence[str], facts: Sequence[FileFacts]
) -> Iterator[Problem]:
    """Compare the grid of the label with that of the case's first image."""
    for name, fact in zip(names, facts, strict=True):
        if label.geometry and fact.geometry:
            yield from find_misplaced_label(label.geometry, fact.geometry, file_name, name)
            return


# ---- the data set as a whole ----


def find_dataset_problems(raw_dataset: str | Path | RawDataset) -> list[Problem]:
    """Return the problems that ``dataset.json`` and the file names show."""
    try:
        raw = RawDataset.of(raw_dataset)
        choose_reader(raw.description, [])
    except UserError as error:
        return list(error.problems)
    return [*find_unfinished_round(raw.folder), *find_naming_problems(raw)]


def find_duplicate_problems(reports: Sequence[CaseReport]) -> dict[str, Problem]:
    """Return unlabelled case -> its problem, if its voxels equal a labelled or test image: leakage.

    Equal unlabelled images are no problem.
    """
    originals = {
        report.content_hash: report
        for report in reports
        if report.content_hash is not None and report.subset != "unlabelled"
    }
    problems = {}
    for report in reports:
        twin = originals.get(report.content_hash) if report.content_hash else None
        if report.subset == "unlabelled" and twin is not None:
            defect = (
                f"its voxels equal those of the {twin.subset} case {twin.case!r}, which it leaks"
            )
            file_name = f"{UNLABELLED_IMAGES}: case {report.case}"
            problems[report.case] = Problem(
                file_name, defect, f"remove it from {UNLABELLED_IMAGES}"
            )
    return problems


def find_empty_labels_problem(raw: RawDataset, reports: Sequence[CaseReport]) -> Iterator[Problem]:
    """Yield a problem if no label shows a class: nnU-Net cannot plan without any."""
    labelled = [report for report in reports if report.subset == "labelled"]
    if labelled and all(report.only_background for report in labelled):
        defect = f"no label shows a class: all voxels of {format_count(labelled, 'label')} are 0"
        yield Problem(str(raw.folder / "labelsTr"), defect, "export the labels again, or add some")


def find_dataset_warnings(reports: Sequence[CaseReport]) -> Iterator[str]:
    """Yield warnings of what may be intended: empty labels, one label, labelled test images."""
    labelled = [report for report in reports if report.subset == "labelled"]
    if len(labelled) == 1:
        defect = f"a fold needs at least 2 labelled cases, got 1 ({labelled[0].case})"
        yield f"{defect}. Fix: train fold 'all', or label another case"
    if empty := [report.case for report in labelled if report.only_background]:
        defect = f"{len(empty)} of {len(labelled)} labels show no class, all voxels are 0: "
        defect += f"{list_first(empty, NAMED)}. They are kept, as labels of background"
        yield f"{defect}. Fix: move unlabelled images to {UNLABELLED_IMAGES}"
    originals = {report.content_hash: report.case for report in labelled if report.content_hash}
    tests = [report for report in reports if report.subset == "test"]
    twins = [
        f"{report.case} (labelled: {originals[report.content_hash]})"
        for report in tests
        if report.content_hash in originals
    ]
    if twins:
        defect = (
            f"the voxels of {len(twins)} of {len(tests)} test images equal those of a labelled "
        )
        defect += f"image: {list_first(twins, NAMED)}. Measures on them mean nothing"
        yield f"{defect}. Fix: remove them from imagesTs"
