"""Synapse: abdominal CT of the BTCV challenge ("Beyond the Cranial Vault"), 13 organs.

    SRC/.../img/img0001.nii.gz                                  0001-0010 and 0021-0040
    SRC/.../label/label0001.nii.gz

Both are in Abdomen/RawData.zip of Synapse syn3193805, in RawData/Training. The folders
averaged-training-images and -labels there (DET0000101_avg.nii.gz) contain other files. 4 labelled,
16 unlabelled, 4 validation (imagesVal) and 6 test cases as in A&D (Wang & Li 2023) and DHC;
labelled_subsets.json has the 4. Volumes keep their voxels.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from semi_nnunet.datasets.conversion import Conversion, ConvertedCase
from semi_nnunet.datasets.options import Symlink
from semi_nnunet.datasets.source import DownloadFolder
from semi_nnunet.datasets.volumes import copy_or_link, write_mapped_label

ALL = tuple(f"{number:04d}" for number in (*range(1, 11), *range(21, 41)))
LABELLED = ("0009", "0021", "0025", "0034")
PUBLISHED = (len(LABELLED),)
VALIDATION = ("0001", "0007", "0023", "0030")
TEST = ("0008", "0027", "0029", "0033", "0037", "0039")
LABELS = (
    *("spleen", "right_kidney", "left_kidney", "gallbladder", "esophagus", "liver", "stomach"),
    *("aorta", "inferior_vena_cava", "portal_and_splenic_vein", "pancreas"),
    *("right_adrenal_gland", "left_adrenal_gland"),
)
SAME_VALUES = {value: value for value in range(14)}


def convert(source: Path, symlink: Symlink = False) -> Conversion:
    """Plan the conversion; raise a UserError for missing and unexpected files."""
    folder = DownloadFolder(source, "Synapse (BTCV)")
    files = folder.find(
        (".nii.gz",),
        image=r"img(?P<id>00[0-4]\d)\.nii\.gz",
        label=r"label(?P<id>00[0-4]\d)\.nii\.gz",
        test=r"img00[678]\d\.nii\.gz",  # of the challenge, with secret labels
    )
    folder.require(ALL, files["image"], "img{}.nii.gz")
    folder.require(ALL, files["label"], "label{}.nii.gz")
    folder.raise_problems()
    cases = [
        ConvertedCase(
            f"synapse_{number}",
            "Val" if number in VALIDATION else "Ts" if number in TEST else "Tr",
            partial(copy_or_link, files["image"][number], symlink),
            partial(write_mapped_label, files["label"][number], SAME_VALUES),
            f"label{number}.nii.gz",
        )
        for number in ALL
    ]
    subsets = [[f"synapse_{number}" for number in LABELLED]]
    return Conversion("Synapse", ("CT",), LABELS, cases, "Landman et al., MICCAI 2015", subsets)
