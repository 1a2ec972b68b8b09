"""Reports of checked cases, kept so that unchanged files are not decoded again.

A report without problems is written with a checksum of all that it depends on: the bytes of the
case's files, their names, the rules of the data set, and the programs that check and read. The next
check reads all bytes again, so it notices a damaged or exchanged file, but decodes only cases with
another checksum. Size and modification time of a file do not count.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import astuple, dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from semi_nnunet.raw.description import RawCase
from semi_nnunet.raw.readers import Geometry, with_spacing_files
from semi_nnunet.util.errors import Problem, UserError
from semi_nnunet.util.files import sha256_of_file, write_text
from semi_nnunet.util.provenance import FileRecord
from semi_nnunet.verify.file_bytes import scan_raw
from semi_nnunet.verify.image_files import inspect_file

SELF_CONTAINED = (".nii.gz", ".nii", ".png", ".bmp")  # others may refer to a second file
READERS = ("nnunetv2", "SimpleITK", "nibabel", "scikit-image", "numpy")


@dataclass(frozen=True)
class CaseReport:
    """The problems and properties of one case.

    Args:
        subset: "labelled", "unlabelled" or "test".
        content_hash: SHA-256 of shape and decoded voxels, so that a recompressed copy is
            recognised; None if a file is unreadable.
        problems: empty if the case is fine.
        geometry: of its first readable image, None without one.
        quantiles: of the voxels of each channel, at
            :data:`~semi_nnunet.verify.image_files.QUANTILES`; without those of bad files.
        only_background: whether its label is 0 everywhere.
        source: :func:`compute_report_source` of its files, or "".
        records: of its files, before they were decoded.
        thumbnail: of its first image, as text, see
            :func:`~semi_nnunet.verify.image_files.make_thumbnail`; "" for bad files.
    """

    case: str
    subset: str
    content_hash: str | None
    problems: tuple[Problem, ...]
    geometry: Geometry | None = None
    quantiles: tuple[tuple[float, ...], ...] = ()
    only_background: bool = False
    source: str = ""
    records: tuple[FileRecord, ...] = ()
    thumbnail: str = ""


KnownReports = dict[tuple[str, str], CaseReport]  # (subset, case) -> its report


def list_files_of(case: RawCase) -> tuple[str, ...]:
    """Return the images and the label of a case, each after the file of its spacing."""
    images = with_spacing_files(case.images, is_label=False)
    labels = with_spacing_files(() if case.label is None else [case.label], is_label=True)
    return tuple(map(str, (*images, *labels)))


def list_checked_states(
    case: RawCase, report: CaseReport
) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Return each file of a case and its state when it was checked; () if a file was missing."""
    files = list_files_of(case)
    if len(files) != len(report.records):
        return ()
    return tuple(zip(files, (record.state for record in report.records), strict=True))


def record_files(paths: Sequence[str]) -> tuple[FileRecord, ...]:
    """Read the files of a case and return their records; () if one is missing or unreadable."""
    try:
        return tuple(FileRecord.of(Path(path)) for path in paths if os.path.isfile(path))
    except (OSError, UserError):  # reported by the check
        return ()


def compute_report_source(paths: Sequence[str], records: Sequence[FileRecord], rules: str) -> str:
    """Return a checksum of all that the report of a case depends on.

    Returns:
        The checksum, or "" if a path has no record, or has a format that may keep voxels or
        geometry in another file.
    """
    if len(records) != len(paths) or not all(path.endswith(SELF_CONTAINED) for path in paths):
        return ""
    digest = hashlib.sha256(f"{rules}\n{_describe_programs()}".encode())
    for path, record in zip(paths, records, strict=True):
        digest.update(f"\n{path}\n{record.digest}".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def find_changed_cases(
    cases: Iterable[RawCase], reports: KnownReports, skipped: Collection[str]
) -> tuple[list[str], KnownReports]:
    """Find the labelled and unlabelled cases that are new, gone or other than in the reports.

    Args:
        cases: present ones.
        reports: those of the last preprocessing; without records of files nothing is known.
        skipped: unlabelled cases that it skipped.

    Returns:
        The changed cases; and the reports, those of unchanged cases with the present states of
        their files. A copied data set, for example, has other times and inodes.
    """
    known = {key: report for key, report in reports.items() if report.records and key[0] != "test"}
    changed, refreshed = list[str](), dict(reports)
    for case in cases if known else ():
        if case.subset == "test":
            continue
        report = known.pop((case.subset, case.case), None)
        if case.subset == "unlabelled" and case.case in skipped:
            continue  # outliers and copies have a report, broken images have none
        if report is None:
            changed.append(f"{case.case} (new)")
            continue
        files = list_files_of(case)
        pairs = zip(files, report.records, strict=False)
        states = [record.refreshed(Path(path)) for path, record in pairs]
        records = tuple(state for state in states if state is not None)
        if len(records) != len(files) or len(records) != len(report.records):
            changed.append(case.case)
        elif records != report.records:
            refreshed[case.subset, case.case] = replace(report, records=records)
    return changed + [f"{case} (gone)" for _, case in known], refreshed


@cache
def _describe_programs() -> str:
    """Return the versions of the reading packages and checksums of this package's checks."""
    sources = [Path(inspect.getfile(item)) for item in (scan_raw, inspect_file, Geometry)]
    sources.append(Path(__file__).with_name("integrity.py"))
    return " ".join([*map(version, READERS), *map(sha256_of_file, sources)])


def read_reports(path: Path) -> KnownReports:
    """Return the reports that :func:`write_reports` wrote; skip unreadable lines."""
    reports: KnownReports = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                report = _parse_report(line)
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                continue
            reports[report.subset, report.case] = report
    return reports


def _parse_report(line: str) -> CaseReport:
    content = json.loads(line)
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in content.pop("geometry").items()
    }
    geometry = Geometry(**fields)
    quantiles = tuple(map(tuple, content.pop("quantiles")))
    records = tuple(FileRecord(*values) for values in content.pop("records", ()))
    return CaseReport(
        **content, problems=(), geometry=geometry, quantiles=quantiles, records=records
    )


def write_reports(path: Path, reports: Iterable[CaseReport]) -> None:
    """Write the reports that have no problems, atomically."""
    lines = []
    for report in reports:
        if not report.problems and report.geometry:
            content: dict[str, Any] = {**vars(report), "geometry": vars(report.geometry)}
            content["records"] = [astuple(record) for record in report.records]
            del content["problems"]  # asdict would be slow
            lines.append(json.dumps(content) + "\n")
    write_text(path, "".join(lines))
