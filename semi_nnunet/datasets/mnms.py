"""M&Ms: cine MR of the heart, scanners of four vendors (Campello et al., TMI 2021).

    SRC/*information*.csv                                       External code, Vendor, ED, ES, ...
    SRC/Training/Labeled/A0S9V9/A0S9V9_sa.nii.gz                4-D, with A0S9V9_sa_gt.nii.gz
    SRC/Training/Unlabeled, SRC/Validation, SRC/Testing         in the same way

With --target A: the vendors B, C and D are for training and all of A for the test (190, 250, 100,
100 images of A, B, C, D), as in A&D (Wang & Li 2023). A case is one labelled frame, end diastole or
end systole. labelled_subsets.json has 2 % and 5 % of the subjects of each training vendor, rounded
up: 10 and 26 images for A, 8 and 22 for B, 12 and 30 for C and D. --seed draws the subjects, which
are not published. The 25 subjects of Training/Unlabeled are not used.

Frames keep all slices: A&D selects slices by the labels, also of test cases.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from semi_nnunet.datasets.conversion import Conversion, ConvertedCase
from semi_nnunet.datasets.options import Seed
from semi_nnunet.datasets.source import DownloadFolder, Files, shuffle_names
from semi_nnunet.datasets.volumes import extract_frame, map_label_values, read_volume, save_volume

VENDORS = ("A", "B", "C", "D")
PERCENT_LABELLED = (2, 5)
LABELS = ("left_ventricle", "myocardium", "right_ventricle")
SAME_VALUES = {0: 0, 1: 1, 2: 2, 3: 3}
PATIENT = "[A-D]_[A-Z0-9]{6}"
DOMAIN = "[A-D]"  # the vendor
COLUMNS = ("External code", "Vendor", "ED", "ES")
Subjects = dict[str, dict[str, str]]


def convert(
    source: Path,
    target: Annotated[Literal["A", "B", "C", "D"], Parameter(help="The vendor of the test cases.")],
    seed: Seed = 0,
) -> Conversion:
    """Plan the conversion; raise a UserError for missing and unexpected files."""
    folder = DownloadFolder(source, "M&Ms")
    files = folder.find(
        (".nii.gz",),
        image=r"(?P<id>[A-Z0-9]{6})_sa\.nii\.gz",
        label=r"(?P<id>[A-Z0-9]{6})_sa_gt\.nii\.gz",
    )
    unused = [c for c, path in files["image"].items() if path.parent.parent.name == "Unlabeled"]
    subjects = _subjects(folder, unused)
    folder.require(subjects, files["image"], "{}_sa.nii.gz")
    for code in files["image"]:
        if subjects and code not in subjects:
            where = folder.relative_name(files["image"][code])
            folder.add_problem(where, "the table has no such subject", "move it away")
    folder.require(files["label"], files["image"], "{}_sa.nii.gz")
    labelled = {code: row for code, row in subjects.items() if code not in unused}
    folder.require(labelled, files["label"], "{}_sa_gt.nii.gz")
    folder.raise_problems()
    cases = [
        _case(files, code, row, phase, "Ts" if row["Vendor"] == target else "Tr")
        for code, row in sorted(labelled.items())
        for phase in ("ED", "ES")
    ]
    subsets = [_subset(labelled, target, percent, seed) for percent in PERCENT_LABELLED]
    subsets = [subset for i, subset in enumerate(subsets) if subset not in subsets[:i]]
    sources = "".join(vendor for vendor in VENDORS if vendor != target)
    name, reference = f"MnMs_{sources}2{target}", "Campello et al., TMI 2021"
    return Conversion(
        name, ("cine_MR",), LABELS, cases, reference, subsets, patient=PATIENT, domain=DOMAIN
    )


def _subjects(folder: DownloadFolder, unused: Collection[str]) -> Subjects:
    """Return subject -> its row of the table; rows of unused subjects may be incomplete."""
    tables = sorted(folder.root.glob("*information*.csv"))
    if len(tables) != 1:
        what = f"there must be one such table in {folder.root}, got {len(tables)}"
        folder.add_problem("*information*.csv", what, "copy it from the download")
        return {}
    name, copy = tables[0].name, "copy it again from the download, as text in UTF-8 with commas"
    # a wrong encoding may spoil names of people, but the columns that are read are ASCII
    with open(tables[0], newline="", encoding="utf-8-sig", errors="replace") as file:
        reader = csv.DictReader(file)
        try:
            rows = list(reader)
        except csv.Error as error:
            folder.add_problem(name, f"must be a table of comma-separated values ({error})", copy)
            return {}
    if not {*COLUMNS} <= {*(reader.fieldnames or ())}:
        what = f"must have the columns {', '.join(COLUMNS)}, got {reader.fieldnames}"
        folder.add_problem(name, what[:300], copy)
        return {}
    lines: dict[str, int] = {}
    for number, row in enumerate(rows, start=2):
        code, where = row["External code"], f"{name}, line {number}"
        if code and lines.setdefault(code, number) != number:
            what = f"{code} must be listed once, but is in line {lines[code]}, too"
            folder.add_problem(where, what, "remove one of the two")
        if code in unused:
            continue
        lacking = [column for column in COLUMNS if not row.get(column)]
        frames_ok = all((row.get(column) or "").strip().isdecimal() for column in ("ED", "ES"))
        if lacking or not frames_ok or row["Vendor"] not in VENDORS:
            what = f"must give {', '.join(COLUMNS)} (A-D, whole numbers), got {dict(row)}"
            folder.add_problem(where, what[:300], "correct the line")
    return {row.get("External code") or "": row for row in rows}


def _case(
    files: Mapping[str, Files], code: str, row: Mapping[str, str], phase: str, part: str
) -> ConvertedCase:
    frame = int(row[phase])  # numbered from 0
    return ConvertedCase(
        f"{row['Vendor']}_{code}_{phase}",
        part,
        partial(write_frame, files["image"][code], frame, False),
        partial(write_frame, files["label"][code], frame, True),
        f"{code}, frame {frame}",
    )


def _subset(subjects: Subjects, target: str, percent: int, seed: int) -> list[str]:
    subjects_drawn = []
    for vendor in VENDORS:
        codes = [code for code, row in subjects.items() if row["Vendor"] == vendor != target]
        number = math.ceil(len(codes) * percent / 100)
        subjects_drawn += [f"{vendor}_{code}" for code in shuffle_names(codes, seed)[:number]]
    return [f"{subject}_{phase}" for subject in subjects_drawn for phase in ("ED", "ES")]


def write_frame(source: Path, frame: int, is_label: bool, target: Path) -> None:
    """Write a frame of a 4-D image."""
    image = extract_frame(read_volume(source), frame)
    save_volume(map_label_values(image, SAME_VALUES) if is_label else image, target)
