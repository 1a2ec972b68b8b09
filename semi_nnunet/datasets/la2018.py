"""LA: gadolinium-enhanced MR of the left atrium (2018 challenge; Xiong et al., MedIA 2020).

Either as published with UA-MT (Yu et al. 2019), cropped around the atrium and normalised,

    SRC/.../06SR5RBREL16DQ6M8LWS/mri_norm2.h5                   with "image" and "label", (x, y, z)

or the challenge's training set, uncropped:

    SRC/.../06SR5RBREL16DQ6M8LWS/lgemri.nrrd                    and laendo.nrrd, 0 and 255

80 training and 20 test cases as in UA-MT; labelled_subsets.json has its first 4, 8 and 16. The h5
files are cropped around the label, also those of test cases, as in all published results. They have
no spacing; the 0.625 mm of the challenge are written.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from semi_nnunet.datasets.conversion import Conversion, ConvertedCase
from semi_nnunet.datasets.lists import load_published_cases
from semi_nnunet.datasets.source import DownloadFolder
from semi_nnunet.datasets.volumes import make_volume, read_volume, save_volume, write_mapped_label
from semi_nnunet.util.errors import UserError

PARTS = {"train": "Tr", "test": "Ts"}
PUBLISHED = (4, 8, 16)  # labelled cases of the published lists
SPACING_MM = (0.625, 0.625, 0.625)
CASE = r"(?P<id>[A-Za-z0-9_]+)"


def convert(source: Path) -> Conversion:
    """Plan the conversion; raise a UserError for missing and unexpected files."""
    folder = DownloadFolder(source, "LA 2018")
    files = folder.find(
        (".h5", ".nrrd"),
        h5=rf"{CASE}/mri_norm2\.h5",
        image=rf"{CASE}/lgemri\.nrrd",
        label=rf"{CASE}/laendo\.nrrd",
        wall=r"lawall\.nrrd",
    )
    lists, is_h5 = load_published_cases("la2018"), bool(files["h5"])
    names = [*lists["train"], *lists["test"]]
    if is_h5:
        folder.require(names, files["h5"], "{}/mri_norm2.h5")
    else:
        folder.require(names, files["image"], "{}/lgemri.nrrd")
        folder.require(names, files["label"], "{}/laendo.nrrd")
    folder.raise_problems()
    if is_h5:
        _import_h5py()  # raises an error before anything is written
    cases = [
        _h5_case(name, part, files["h5"][name])
        if is_h5
        else _nrrd_case(name, part, files["image"][name], files["label"][name])
        for group, part in PARTS.items()
        for name in lists[group]
    ]
    subsets = [lists["train"][:number] for number in PUBLISHED]
    return Conversion(
        "LA2018", ("LGE_MR",), ("left_atrium",), cases, "Xiong et al., MedIA 2020", subsets
    )


def _h5_case(name: str, part: str, path: Path) -> ConvertedCase:
    image, label = partial(write_h5, path, "image"), partial(write_h5, path, "label")
    return ConvertedCase(name, part, image, label, f"{name}/{path.name}")


def _nrrd_case(name: str, part: str, image: Path, label: Path) -> ConvertedCase:
    write = partial(write_mapped_label, label, {0: 0, 255: 1})
    return ConvertedCase(name, part, partial(write_nrrd, image), write, name)


def write_nrrd(source: Path, target: Path) -> None:
    """Write a NRRD image as NIfTI."""
    save_volume(read_volume(source), target)


def write_h5(source: Path, key: str, target: Path) -> None:
    """Write the "image" or "label" of an h5 file, whose axes are x, y, z."""
    with _import_h5py().File(source, "r") as file:
        array = np.asarray(file[key])
    array = array.astype(np.float32) if key == "image" else (array > 0).astype(np.uint8)
    save_volume(make_volume(array.transpose(2, 1, 0), SPACING_MM), target)


def _import_h5py() -> Any:
    """Import the reader of h5 files; raise a UserError if it is not installed."""
    try:
        import h5py
    except ImportError as error:
        raise UserError(
            "mri_norm2.h5 needs h5py, which is not installed",
            fix="pip install semi_nnunet[convert]",
        ) from error
    return h5py
