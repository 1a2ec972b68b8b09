"""FLARE23: abdominal CT, 13 organs and tumours; 2200 partially labelled, 1800 unlabelled.

    SRC/.../imagesTr2200/CASE_0000.nii.gz                       2200 images
    SRC/.../labelsTr2200/CASE.nii.gz                            their labels
    SRC/.../unlabelTr1800/CASE_0000.nii.gz                      1800 unlabelled images
    SRC/.../imagesVal100/CASE_0000.nii.gz                       tuning images, if they are there,
    SRC/.../labelsVal100/CASE.nii.gz                            and their labels, if all are there

The labels come from data sets in which different organs were drawn, and nothing says which. Here a
training label annotates the classes that it holds, and the others are unknown in it: that forgets
that an organ was removed, and claims nothing that is wrong. The numbers in the folders' names may
be missing. The tuning set, whose labels are complete, becomes the test set. --symlink saves a copy
of some 800 GB.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from semi_nnunet.datasets import flare22
from semi_nnunet.datasets.conversion import Conversion
from semi_nnunet.datasets.options import add_incomplete, add_symlink
from semi_nnunet.datasets.source import Source

PUBLISHED = ()  # there are no lists of labelled cases
NUMBERS = {"labelled images": 2200, "unlabelled images": 1800}
LABELS = (*flare22.LABELS, "tumour")
FOLDERS = {"Tr": "imagesTr", "Un": "unlabel(?:l?ed)?Tr", "Ts": "imagesVal"}


def add_options(parser: argparse.ArgumentParser) -> None:
    add_symlink(parser)
    add_incomplete(parser)


def convert(source: Path, symlink: bool = False, incomplete: bool = False) -> Conversion:
    """Plan the conversion; raises UserError for missing and unexpected files."""
    folder = Source(source, "FLARE23")
    image, label = r"\d*/(?P<id>[^/]+)_0000\.nii\.gz", r"\d*/(?P<id>[^/]+)\.nii\.gz"
    found = folder.find(
        (".nii.gz",),
        **{part: name + image for part, name in FOLDERS.items()},
        Tr_label="labelsTr" + label,
        Ts_label="labelsVal" + label,
    )
    cases = flare22.checked_cases(folder, found, NUMBERS, symlink, incomplete)
    return Conversion(
        "FLARE23", ("CT",), LABELS, cases, "Ma et al., MICCAI FLARE 2023", partly_labelled=True
    )
