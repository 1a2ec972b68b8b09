"""What an earlier check found in files that are still the same, so that none is decoded twice.

A report without problems is written down with a checksum of what it follows from: the bytes of the
case's files, their names, the rules of the data set, and the programs that check and read. The next
check reads all bytes again, so that a damaged or exchanged file is noticed, and decodes only what
has another checksum. Neither the size nor the time of a file is trusted.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from semi_nnunet.data import file_bytes, image_files
from semi_nnunet.data.image_files import Geometry
from semi_nnunet.util.errors import Problem
from semi_nnunet.util.files import sha256_of_file, write_text

SELF_CONTAINED = (".nii.gz", ".nii", ".png", ".bmp")  # others may point to a second file
READERS = ("nnunetv2", "SimpleITK", "nibabel", "scikit-image", "numpy")


@dataclass(frozen=True)
class CaseReport:
    """What is wrong with one case, and what its images are like.

    Args:
        case: its identifier.
        subset: "labelled", "unlabelled" or "test".
        content_hash: sha256 over shape and voxel values, decoded, so that recompression does not
            hide equality; None if a file is unreadable.
        problems: empty if the case is fine.
        geometry: of its first readable image; None if there is none.
        quantiles: of the voxels of each channel, at
            :data:`~semi_nnunet.data.image_files.QUANTILES`; bad files are left out.
        only_background: it has a label that is 0 everywhere.
        source: :func:`source_of` its files; "" where they have none.
    """

    case: str
    subset: str
    content_hash: str | None
    problems: tuple[Problem, ...]
    geometry: Geometry | None = None
    quantiles: tuple[tuple[float, ...], ...] = ()
    only_background: bool = False
    source: str = ""


Known = dict[tuple[str, str], CaseReport]  # (subset, case) -> its report


def source_of(paths: Iterable[str], rules: str) -> str:
    """A checksum of all that the report of a case follows from.

    Args:
        paths: of its images and label.
        rules: what the data set holds them to.

    Returns:
        It, or "" if one cannot be read, is no file, or is of a format that may keep voxels or
        geometry in another file.
    """
    digest = hashlib.sha256(f"{rules}\n{_programs()}".encode())
    for path in paths:
        if not (path.endswith(SELF_CONTAINED) and os.path.isfile(path)):
            return ""
        try:
            digest.update(f"\n{path}\n{sha256_of_file(path)}".encode("utf-8", "surrogateescape"))
        except OSError:
            return ""
    return digest.hexdigest()


@cache
def _programs() -> str:
    """The versions of what reads images, and this package's own checks as they are."""
    here = Path(__file__)
    checks = (here.with_name("integrity.py"), Path(file_bytes.__file__), Path(image_files.__file__))
    return " ".join([*map(version, READERS), *map(sha256_of_file, checks)])


def read_reports(path: Path) -> Known:
    """The reports in a file of :func:`write_reports`; what cannot be read of it is left out."""
    known: Known = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                report = _from_json(line)
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                continue
            known[report.subset, report.case] = report
    return known


def _from_json(line: str) -> CaseReport:
    content = json.loads(line)
    place = content.pop("geometry")
    geometry = Geometry(**{key: _tuple(value) for key, value in place.items()})
    quantiles = tuple(map(tuple, content.pop("quantiles")))
    return CaseReport(**content, problems=(), geometry=geometry, quantiles=quantiles)


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def write_reports(path: Path, reports: Iterable[CaseReport]) -> None:
    """Write down those reports that have a source and no problems, atomically."""
    lines = []
    for report in reports:
        if report.source and not report.problems and report.geometry:
            content = {**vars(report), "geometry": vars(report.geometry)}  # asdict is slow
            del content["problems"]
            lines.append(json.dumps(content) + "\n")
    write_text(path, "".join(lines))
