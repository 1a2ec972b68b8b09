"""FLARE22: abdominal CT (Ma et al., Lancet Digital Health 2024), 50 labelled, 2000 unlabelled.

    SRC/.../FLARE22_Tr_0001_0000.nii.gz                         50 images (images/)
    SRC/.../FLARE22_Tr_0001.nii.gz                              50 labels (labels/), 13 organs
    SRC/.../Case_00001_0000.nii.gz                              2000 unlabelled images
    SRC/.../FLARETs_0001_0000.nii.gz                            tuning images, if they are there,
    SRC/.../FLARETs_0001.nii.gz                                 and their labels, if all are there

The unlabelled images go to imagesUn, so nothing is to be split. The tuning set, on which FLARE22's
validation scores are measured, becomes the test set. --symlink saves a copy of some 400 GB.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from semi_nnunet.datasets.conversion import Conversion, ConvertedCase
from semi_nnunet.datasets.options import add_incomplete, add_symlink
from semi_nnunet.datasets.source import Files, Source
from semi_nnunet.datasets.volumes import place

PUBLISHED = ()  # there are no lists of labelled cases
NUMBERS = {"labelled images": 50, "unlabelled images": 2000}
LABELS = (
    *("liver", "right_kidney", "spleen", "pancreas", "aorta", "inferior_vena_cava"),
    *("right_adrenal_gland", "left_adrenal_gland", "gallbladder", "esophagus", "stomach"),
    *("duodenum", "left_kidney"),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    add_symlink(parser)
    add_incomplete(parser)


def convert(source: Path, symlink: bool = False, incomplete: bool = False) -> Conversion:
    """Plan the conversion; raises UserError for missing and unexpected files."""
    folder = Source(source, "FLARE22")
    found = folder.find(
        (".nii.gz",),
        Tr=r"(?P<id>FLARE22_Tr_\d{4})_0000\.nii\.gz",
        Tr_label=r"(?P<id>FLARE22_Tr_\d{4})\.nii\.gz",
        Un=r"(?P<id>Case_\d{5})_0000\.nii\.gz",
        Ts=r"(?P<id>FLARETs_\d{4})_0000\.nii\.gz",
        Ts_label=r"(?P<id>FLARETs_\d{4})\.nii\.gz",
    )
    cases = checked_cases(folder, found, NUMBERS, symlink, incomplete)
    return Conversion("FLARE22", ("CT",), LABELS, cases, "Ma et al., Lancet Digital Health 2024")


def checked_cases(
    folder: Source,
    found: Mapping[str, Files],
    numbers: Mapping[str, int],
    symlink: bool,
    incomplete: bool,
) -> list[ConvertedCase]:
    """The cases of a FLARE challenge; raises UserError for missing and unexpected files.

    Args:
        folder: of the download.
        found: "Tr", "Un" and "Ts", the tuning images -> the images, and "Tr_label" and "Ts_label".
        numbers: name -> how many labelled and how many unlabelled images there must be.
        symlink, incomplete: as of :func:`convert`.
    """
    names = ("{}_0000.nii.gz", "{}.nii.gz")
    folder.need_pairs(found["Tr"], found["Tr_label"], *names)
    if found["Ts_label"]:
        folder.need_pairs(found["Ts"], found["Ts_label"], *names)
    for part, (what, number) in zip(("Tr", "Un"), numbers.items(), strict=True):
        folder.need_number(len(found[part]), number, what, incomplete)
    folder.check()
    cases = []
    for part in ("Tr", "Un", "Ts"):
        labels = found.get(f"{part}_label", {})
        for name, image in found[part].items():
            label = partial(place, labels[name], symlink) if name in labels else None
            cases.append(ConvertedCase(name, part, partial(place, image, symlink), label, name))
    return cases
