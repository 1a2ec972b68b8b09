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
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from semi_nnunet.raw.readers import Geometry
from semi_nnunet.util.errors import Problem
from semi_nnunet.util.files import sha256_of_file, write_text
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
        states: of its files before they were read, see
            :func:`semi_nnunet.util.provenance.read_state`; not stored.
    """

    case: str
    subset: str
    content_hash: str | None
    problems: tuple[Problem, ...]
    geometry: Geometry | None = None
    quantiles: tuple[tuple[float, ...], ...] = ()
    only_background: bool = False
    source: str = ""
    states: tuple[tuple[int, ...], ...] = ()


KnownReports = dict[tuple[str, str], CaseReport]  # (subset, case) -> its report


def compute_report_source(paths: Iterable[str], rules: str) -> str:
    """Return a checksum of all that the report of a case depends on.

    Returns:
        The checksum, or "" if a path is unreadable, is no file, or has a format that may keep
        voxels or geometry in another file.
    """
    digest = hashlib.sha256(f"{rules}\n{_describe_programs()}".encode())
    for path in paths:
        if not (path.endswith(SELF_CONTAINED) and os.path.isfile(path)):
            return ""
        try:
            digest.update(f"\n{path}\n{sha256_of_file(path)}".encode("utf-8", "surrogateescape"))
        except OSError:
            return ""
    return digest.hexdigest()


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
    return CaseReport(**content, problems=(), geometry=geometry, quantiles=quantiles)


def write_reports(path: Path, reports: Iterable[CaseReport]) -> None:
    """Write the reports that have a source and no problems, atomically."""
    lines = []
    for report in reports:
        if report.source and not report.problems and report.geometry:
            content: dict[str, Any] = {**vars(report), "geometry": vars(report.geometry)}
            del content["problems"], content["states"]  # asdict would be slow
            lines.append(json.dumps(content) + "\n")
    write_text(path, "".join(lines))
