"""MM-WHS: the whole heart in CT and MR (Zhuang & Shen, MedIA 2016), from one to the other.

    SRC/.../ct_train_1001_image.nii.gz                          1001-1020
    SRC/.../ct_train_1001_label.nii.gz
    SRC/.../mr_train_1001_image.nii.gz                          1001-1020
    SRC/.../mr_train_1001_label.nii.gz
    SRC/.../ct_test_2001_image.nii.gz, ...                      labels encrypted: not used

With --target mr: 16 labelled CT, 13 unlabelled MR, 3 MR for validation (imagesVal), 4 MR for the
test, as in A&D (Wang & Li 2023); labelled_subsets.json has the 16. The 4 test cases of the source
are left out. With --target ct --seed draws the 3 validation cases, which are not published.

Myocardium 205, left atrium 420, left ventricle 500 and ascending aorta 820 are kept, other
structures become background. All images get the same axes (LPS). Nothing is cropped: A&D crops the
target, also test cases, to the box of the labels, which are unknown for new images.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import SimpleITK as sitk
from cyclopts import Parameter

from semi_nnunet.datasets.conversion import Conversion, ConvertedCase
from semi_nnunet.datasets.options import Seed
from semi_nnunet.datasets.source import DownloadFolder, Files, shuffle_names
from semi_nnunet.datasets.volumes import map_label_values, read_volume, save_volume

NUMBERS = tuple(range(1001, 1021))
PUBLISHED = (16,)  # labelled cases of the published list
TEST = {"mr": (1007, 1009, 1018, 1019), "ct": (1003, 1008, 1014, 1019)}
VALIDATION_MR = (1012, 1015, 1016)
LABELS = ("myocardium", "left_atrium", "left_ventricle", "ascending_aorta")
# right ventricle, right atrium, pulmonary artery; 421: stray voxels of the left atrium
VALUES = {0: 0, 205: 1, 420: 2, 500: 3, 820: 4, 600: 0, 550: 0, 850: 0, 421: 2}
SCAN = r"(?P<id>(?:ct|mr)_train_\d{4})"


def convert(
    source: Path,
    target: Annotated[Literal["ct", "mr"], Parameter(help="The modality without labels.")],
    seed: Seed = 0,
) -> Conversion:
    """Plan the conversion; raise a UserError for missing and unexpected files."""
    folder = DownloadFolder(source, "MM-WHS")
    files = folder.find(
        (".nii.gz",),
        image=rf"{SCAN}_image\.nii\.gz",
        label=rf"{SCAN}_label\.nii\.gz",
        test=r"(?:ct|mr)_test_\d{4}_(?:image|label(?:_encrypt_1mm)?)\.nii\.gz",
    )
    for modality in ("ct", "mr"):
        scans = [f"{modality}_train_{number}" for number in NUMBERS]
        folder.require(scans, files["image"], "{}_image.nii.gz")
        folder.require(scans, files["label"], "{}_label.nii.gz")
    folder.raise_problems()
    origin = "ct" if target == "mr" else "mr"
    validation = _validation(target, seed)
    labelled = [number for number in NUMBERS if number not in TEST[origin]]
    cases = [_case(files, origin, number, "Tr") for number in labelled]
    for number in NUMBERS:
        part = "Ts" if number in TEST[target] else "Val" if number in validation else "Tr"
        cases.append(_case(files, target, number, part))
    subsets = [[f"{origin}_{number}" for number in labelled]]
    name, reference = f"MMWHS_{origin}2{target}", "Zhuang & Shen, MedIA 2016"
    return Conversion(name, ("heart",), LABELS, cases, reference, subsets, other_domain=True)


def _validation(target: str, seed: int) -> tuple[int, ...]:
    if target == "mr":
        return VALIDATION_MR
    candidates = [str(number) for number in NUMBERS if number not in TEST[target]]
    return tuple(int(number) for number in shuffle_names(candidates, seed)[: len(VALIDATION_MR)])


def _case(files: Mapping[str, Files], modality: str, number: int, part: str) -> ConvertedCase:
    scan = f"{modality}_train_{number}"
    image = partial(write_turned, files["image"][scan], False)
    label = partial(write_turned, files["label"][scan], True)
    return ConvertedCase(f"{modality}_{number}", part, image, label, scan)


def write_turned(source: Path, is_label: bool, target: Path) -> None:
    """Write an image whose axes run to the left, to the back and up (LPS)."""
    image = read_volume(source)
    image = map_label_values(image, VALUES) if is_label else image
    save_volume(sitk.DICOMOrient(image, "LPS"), target)
