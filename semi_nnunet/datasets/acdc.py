"""ACDC: cine MR of the heart (Bernard et al., TMI 2018), end diastole and end systole.

    SRC/training/patient001/Info.cfg                            "ED: 1", "ES: 12"
    SRC/training/patient001/patient001_frame01.nii.gz           and ..._frame01_gt.nii.gz
    SRC/training/patient001/patient001_frame12.nii.gz           and ..._frame12_gt.nii.gz

The 100 training patients are split 70 / 10 / 20 as SSL4MIS does. labelled_subsets.json has its
first 3, 7 and 14 patients: 6, 14 and 28 images. The images keep their voxels and spacing (SSL4MIS
rescales the intensities and drops the spacing).
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from semi_nnunet.datasets.conversion import Conversion, ConvertedCase
from semi_nnunet.datasets.lists import load_published_cases
from semi_nnunet.datasets.options import Symlink
from semi_nnunet.datasets.source import DownloadFolder, Files
from semi_nnunet.datasets.volumes import copy_or_link, write_mapped_label

PARTS = {"train": "Tr", "val": "Val", "test": "Ts"}
LABELLED_PATIENTS = (3, 7, 14)
PUBLISHED = tuple(
    2 * number for number in LABELLED_PATIENTS
)  # labelled images of the published lists
LABELS = ("right_ventricle", "myocardium", "left_ventricle")
SAME_VALUES = {0: 0, 1: 1, 2: 2, 3: 3}
PATIENT = r"patient\d{3}"
FRAME = r"(?P<id>patient\d{3}_frame\d{2})"


def convert(source: Path, symlink: Symlink = False) -> Conversion:
    """Plan the conversion; raise a UserError for missing and unexpected files."""
    folder = DownloadFolder(source, "ACDC")
    files = folder.find(
        (".nii.gz", ".cfg"),
        info=r"(?P<id>patient\d{3})/Info\.cfg",
        image=rf"{FRAME}\.nii\.gz",
        label=rf"{FRAME}_gt\.nii\.gz",
        cine=r"patient\d{3}_4d\.nii\.gz",
    )
    lists = load_published_cases("acdc")
    patients = [patient for group in PARTS for patient in lists[group]]
    frames = {patient: _frames(folder, files["info"], patient) for patient in patients}
    for names in frames.values():
        folder.require(names.values(), files["image"], "{}.nii.gz")
        folder.require(names.values(), files["label"], "{}_gt.nii.gz")
    folder.raise_problems()
    cases = [
        ConvertedCase(
            f"{patient}_{phase}",
            part,
            partial(copy_or_link, files["image"][name], symlink),
            partial(write_mapped_label, files["label"][name], SAME_VALUES),
            name,
        )
        for group, part in PARTS.items()
        for patient in lists[group]
        for phase, name in frames[patient].items()
    ]
    subsets = [
        [f"{patient}_{phase}" for patient in lists["train"][:number] for phase in ("ED", "ES")]
        for number in LABELLED_PATIENTS
    ]
    reference = "Bernard et al., TMI 2018"
    return Conversion("ACDC", ("cine_MR",), LABELS, cases, reference, subsets, patient=PATIENT)


def _frames(folder: DownloadFolder, infos: Files, patient: str) -> dict[str, str]:
    """Return "ED" and "ES" -> patient and number of the frame, as in the file names."""
    folder.require([patient], infos, "{}/Info.cfg")
    if patient not in infos:
        return {}
    text = infos[patient].read_text(errors="replace")
    frames = dict(re.findall(r"^(ED|ES):\s*(\d+)\s*$", text, re.M))
    if len(frames) != 2:
        what = f"must hold the lines 'ED: N' and 'ES: N', got {text[:60]!r}"
        folder.add_problem(
            folder.relative_name(infos[patient]), what, "copy it again from the download"
        )
    return {phase: f"{patient}_frame{int(frames[phase]):02d}" for phase in sorted(frames)}
