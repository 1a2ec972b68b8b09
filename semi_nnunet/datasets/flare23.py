"""FLARE23: abdominal CT, 13 organs and tumours; 2200 partially labelled, 1800 unlabelled.

    SRC/.../imagesTr2200/CASE_0000.nii.gz                       2200 images
    SRC/.../labelsTr2200/CASE.nii.gz                            their labels
    SRC/.../unlabelTr1800/CASE_0000.nii.gz                      1800 unlabelled images
    SRC/.../imagesVal100/CASE_0000.nii.gz                       tuning images, if downloaded,
    SRC/.../labelsVal100/CASE.nii.gz                            and their labels, if complete

The labels come from data sets in which different organs were drawn, and no file lists them. Here a
training label annotates the classes it contains, and the others are unknown in it. This loses the
information that an organ was removed, and makes no wrong claim. The numbers in the names of the
folders may be missing. The tuning set, whose labels are complete, becomes the test set. --symlink
saves a copy of about 800 GB.
"""

from __future__ import annotations

from pathlib import Path

from semi_nnunet.datasets import flare22
from semi_nnunet.datasets.conversion import Conversion
from semi_nnunet.datasets.options import Incomplete, Symlink
from semi_nnunet.datasets.source import DownloadFolder

PUBLISHED = ()  # no lists of labelled cases
NUMBERS = {"labelled images": 2200, "unlabelled images": 1800}
LABELS = (*flare22.LABELS, "tumour")
FOLDERS = {"Tr": "imagesTr", "Un": "unlabel(?:l?ed)?Tr", "Ts": "imagesVal"}


def convert(source: Path, symlink: Symlink = False, incomplete: Incomplete = False) -> Conversion:
    """Plan the conversion; raise a UserError for missing and unexpected files."""
    folder = DownloadFolder(source, "FLARE23")
    image, label = r"\d*/(?P<id>[^/]+)_0000\.nii\.gz", r"\d*/(?P<id>[^/]+)\.nii\.gz"
    files = folder.find(
        (".nii.gz",),
        **{split: name + image for split, name in FOLDERS.items()},
        Tr_label="labelsTr" + label,
        Ts_label="labelsVal" + label,
    )
    cases = flare22.list_flare_cases(folder, files, NUMBERS, symlink, incomplete)
    return Conversion(
        "FLARE23", ("CT",), LABELS, cases, "Ma et al., MICCAI FLARE 2023", partly_labelled=True
    )
