"""FLARE22: abdominal CT (Ma et al., Lancet Digital Health 2024), 50 labelled, 2000 unlabelled.

    SRC/.../FLARE22_Tr_0001_0000.nii.gz                         50 images (images/)
    SRC/.../FLARE22_Tr_0001.nii.gz                              50 labels (labels/), 13 organs
    SRC/.../Case_00001_0000.nii.gz                              2000 unlabelled images
    SRC/.../FLARETs_0001_0000.nii.gz                            tuning images, if downloaded,
    SRC/.../FLARETs_0001.nii.gz                                 and their labels, if complete

The unlabelled images go to imagesUn, so that no split is needed. The tuning set, on which FLARE22's
validation scores are measured, becomes the test set. --symlink saves a copy of about 400 GB.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from semi_nnunet.datasets.conversion import Conversion, ConvertedCase
from semi_nnunet.datasets.options import Incomplete, Symlink
from semi_nnunet.datasets.source import DownloadFolder, Files
from semi_nnunet.datasets.volumes import copy_or_link

PUBLISHED = ()  # no lists of labelled cases
NUMBERS = {"labelled images": 50, "unlabelled images": 2000}
LABELS = (
    *("liver", "right_kidney", "spleen", "pancreas", "aorta", "inferior_vena_cava"),
    *("right_adrenal_gland", "left_adrenal_gland", "gallbladder", "esophagus", "stomach"),
    *("duodenum", "left_kidney"),
)


def convert(source: Path, symlink: Symlink = False, incomplete: Incomplete = False) -> Conversion:
    """Plan the conversion; raise a UserError for missing and unexpected files."""
    folder = DownloadFolder(source, "FLARE22")
    files = folder.find(
        (".nii.gz",),
        Tr=r"(?P<id>FLARE22_Tr_\d{4})_0000\.nii\.gz",
        Tr_label=r"(?P<id>FLARE22_Tr_\d{4})\.nii\.gz",
        Un=r"(?P<id>Case_\d{5})_0000\.nii\.gz",
        Ts=r"(?P<id>FLARETs_\d{4})_0000\.nii\.gz",
        Ts_label=r"(?P<id>FLARETs_\d{4})\.nii\.gz",
    )
    cases = list_flare_cases(folder, files, NUMBERS, symlink, incomplete)
    return Conversion("FLARE22", ("CT",), LABELS, cases, "Ma et al., Lancet Digital Health 2024")


def list_flare_cases(
    folder: DownloadFolder,
    files: Mapping[str, Files],
    numbers: Mapping[str, int],
    symlink: bool,
    incomplete: bool,
) -> list[ConvertedCase]:
    """List the cases of a FLARE challenge; raise a UserError for missing and unexpected files.

    Args:
        folder: of the download.
        files: images of "Tr", "Un" and "Ts" (the tuning set), labels of "Tr_label" and "Ts_label".
        numbers: name -> number of labelled and of unlabelled images.
        symlink, incomplete: of :func:`convert`.
    """
    names = ("{}_0000.nii.gz", "{}.nii.gz")
    folder.require_pairs(files["Tr"], files["Tr_label"], *names)
    if files["Ts_label"]:
        folder.require_pairs(files["Ts"], files["Ts_label"], *names)
    for split, (name, number) in zip(("Tr", "Un"), numbers.items(), strict=True):
        folder.require_number(len(files[split]), number, name, incomplete)
    folder.raise_problems()
    cases = []
    for split in ("Tr", "Un", "Ts"):
        labels = files.get(f"{split}_label", {})
        for name, image in files[split].items():
            label = partial(copy_or_link, labels[name], symlink) if name in labels else None
            cases.append(
                ConvertedCase(name, split, partial(copy_or_link, image, symlink), label, name)
            )
    return cases
