"""M&Ms: cine MR of the heart, scanners of four vendors (Campello et al., TMI 2021).

    SRC/*information*.csv                                       External code, Vendor, ED, ES, ...
    SRC/Training/Labeled/A0S9V9/A0S9V9_sa.nii.gz                4-D, with A0S9V9_sa_gt.nii.gz
    SRC/Training/Unlabeled, SRC/Validation, SRC/Testing         likewise

With --target A: the vendors B, C and D are for training and all of A for the test (190, 250, 100,
100 images of A, B, C, D), as in A&D (Wang & Li 2023). A case is one labelled frame, end diastole or
end systole. labelled_subsets.json has 2 % and 5 % of the subjects of each training vendor, rounded
up: 10 and 26 images for A, 8 and 22 for B, 12 and 30 for C and D. Which subjects is not published:
--seed draws them. The 25 subjects of Training/Unlabeled are not used.

Frames are written whole: A&D cuts slices by the labels of test cases, too.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path

from semi_nnunet.datasets.conversion import Conversion, ConvertedCase
from semi_nnunet.datasets.options import add_seed
from semi_nnunet.datasets.source import Files, Source, shuffled
from semi_nnunet.datasets.volumes import frame_of, read_volume, relabelled, save_volume

VENDORS = ("A", "B", "C", "D")
PERCENT_LABELLED = (2, 5)
LABELS = ("left_ventricle", "myocardium", "right_ventricle")
SAME_VALUES = {0: 0, 1: 1, 2: 2, 3: 3}
PATIENT = "[A-D]_[A-Z0-9]{6}"
COLUMNS = ("External code", "Vendor", "ED", "ES")
Subjects = dict[str, dict[str, str]]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--target", choices=VENDORS, required=True, help="the vendor tested on")
    add_seed(parser)


def convert(source: Path, target: str, seed: int = 0) -> Conversion:
    """Plan the conversion; raises UserError for missing and unexpected files."""
    folder = Source(source, "M&Ms")
    found = folder.find(
        (".nii.gz",),
        image=r"(?P<id>[A-Z0-9]{6})_sa\.nii\.gz",
        label=r"(?P<id>[A-Z0-9]{6})_sa_gt\.nii\.gz",
    )
    unused = [c for c, path in found["image"].items() if path.parents[1].name == "Unlabeled"]
    subjects = _subjects(folder, unused)
    folder.need(subjects, found["image"], "{}_sa.nii.gz")
    for code in found["image"]:
        if subjects and code not in subjects:
            where = folder.within(found["image"][code])
            folder.note(where, "the table has no such subject", "move it away")
    folder.need(found["label"], found["image"], "{}_sa.nii.gz")
    labelled = {code: row for code, row in subjects.items() if code not in unused}
    folder.need(labelled, found["label"], "{}_sa_gt.nii.gz")
    folder.check()
    cases = [
        _case(found, code, row, phase, "Ts" if row["Vendor"] == target else "Tr")
        for code, row in sorted(labelled.items())
        for phase in ("ED", "ES")
    ]
    subsets = [_subset(labelled, target, percent, seed) for percent in PERCENT_LABELLED]
    subsets = [subset for i, subset in enumerate(subsets) if subset not in subsets[:i]]
    sources = "".join(vendor for vendor in VENDORS if vendor != target)
    name, reference = f"MnMs_{sources}2{target}", "Campello et al., TMI 2021"
    return Conversion(name, ("cine_MR",), LABELS, cases, reference, subsets, patient=PATIENT)


def _subjects(folder: Source, unused: Collection[str]) -> Subjects:
    """Code of a subject -> its row of the table; those of the unused ones may be incomplete."""
    tables = sorted(folder.root.glob("*information*.csv"))
    if len(tables) != 1:
        what = f"there must be one such table in {folder.root}, found {len(tables)}"
        folder.note("*information*.csv", what, "copy it from the download")
        return {}
    name, copy = tables[0].name, "copy it again from the download, as text in UTF-8 with commas"
    # another encoding can spoil names of people and places, but the columns that are used are ASCII
    with open(tables[0], newline="", encoding="utf-8-sig", errors="replace") as file:
        reader = csv.DictReader(file)
        try:
            rows = list(reader)
        except csv.Error as error:
            folder.note(name, f"must be a table of comma-separated values ({error})", copy)
            return {}
    if not {*COLUMNS} <= {*(reader.fieldnames or ())}:
        what = f"must have the columns {', '.join(COLUMNS)}, got {reader.fieldnames}"
        folder.note(name, what[:300], copy)
        return {}
    lines: dict[str, int] = {}
    for number, row in enumerate(rows, start=2):
        code, where = row["External code"], f"{name}, line {number}"
        if code and lines.setdefault(code, number) != number:
            what = f"{code} must be listed once, but is in line {lines[code]}, too"
            folder.note(where, what, "remove one of the two")
        if code in unused:
            continue
        lacking = [column for column in COLUMNS if not row.get(column)]
        frames_ok = all((row.get(column) or "").strip().isdecimal() for column in ("ED", "ES"))
        if lacking or not frames_ok or row["Vendor"] not in VENDORS:
            what = f"must give {', '.join(COLUMNS)} (A-D, whole numbers), got {dict(row)}"
            folder.note(where, what[:300], "correct the line")
    return {row.get("External code") or "": row for row in rows}


def _case(
    found: Mapping[str, Files], code: str, row: Mapping[str, str], phase: str, part: str
) -> ConvertedCase:
    frame = int(row[phase])  # numbered from 0
    return ConvertedCase(
        f"{row['Vendor']}_{code}_{phase}",
        part,
        partial(write_frame, found["image"][code], frame, False),
        partial(write_frame, found["label"][code], frame, True),
        f"{code}, frame {frame}",
    )


def _subset(subjects: Subjects, target: str, percent: int, seed: int) -> list[str]:
    chosen = []
    for vendor in VENDORS:
        codes = [code for code, row in subjects.items() if row["Vendor"] == vendor != target]
        number = math.ceil(len(codes) * percent / 100)
        chosen += [f"{vendor}_{code}" for code in shuffled(codes, seed)[:number]]
    return [f"{subject}_{phase}" for subject in chosen for phase in ("ED", "ES")]


def write_frame(source: Path, frame: int, is_label: bool, target: Path) -> None:
    """Write one frame of a 4-D image."""
    image = frame_of(read_volume(source), frame)
    save_volume(relabelled(image, SAME_VALUES) if is_label else image, target)
