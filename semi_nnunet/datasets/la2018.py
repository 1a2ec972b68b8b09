"""LA: gadolinium-enhanced MR of the left atrium (2018 challenge; Xiong et al., MedIA 2020).

Either as UA-MT (Yu et al. 2019) hands it out, cropped around the atrium and normalised,

    SRC/.../06SR5RBREL16DQ6M8LWS/mri_norm2.h5                   with "image" and "label", (x, y, z)

or the challenge's training set, uncropped:

    SRC/.../06SR5RBREL16DQ6M8LWS/lgemri.nrrd                    and laendo.nrrd, 0 and 255

80 training and 20 test cases as in UA-MT; labelled_subsets.json has its first 4, 8 and 16. The crop
of the h5 files was made around the label, test cases included: every published number has it. The
h5 files have no spacing; the challenge's 0.625 mm is written.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from semi_nnunet.datasets.conversion import Conversion, ConvertedCase
from semi_nnunet.datasets.lists import published_cases
from semi_nnunet.datasets.source import Source
from semi_nnunet.datasets.volumes import from_array, read_volume, relabel, save_volume
from semi_nnunet.util.errors import UserError

PARTS = {"train": "Tr", "test": "Ts"}
PUBLISHED = (4, 8, 16)  # labelled cases of its lists
SPACING_MM = (0.625, 0.625, 0.625)
CASE = r"(?P<id>[A-Za-z0-9_]+)"


def add_options(parser: argparse.ArgumentParser) -> None:
    """It has none."""


def convert(source: Path) -> Conversion:
    """Plan the conversion; raises UserError for missing and unexpected files."""
    folder = Source(source, "LA 2018")
    found = folder.find(
        (".h5", ".nrrd"),
        h5=rf"{CASE}/mri_norm2\.h5",
        image=rf"{CASE}/lgemri\.nrrd",
        label=rf"{CASE}/laendo\.nrrd",
        wall=r"lawall\.nrrd",
    )
    lists, is_h5 = published_cases("la2018"), bool(found["h5"])
    wanted = [*lists["train"], *lists["test"]]
    if is_h5:
        folder.need(wanted, found["h5"], "{}/mri_norm2.h5")
    else:
        folder.need(wanted, found["image"], "{}/lgemri.nrrd")
        folder.need(wanted, found["label"], "{}/laendo.nrrd")
    folder.check()
    if is_h5:
        _h5py()  # raises before anything is written
    cases = [
        _h5_case(name, part, found["h5"][name])
        if is_h5
        else _nrrd_case(name, part, found["image"][name], found["label"][name])
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
    relabelled = partial(relabel, label, {0: 0, 255: 1})
    return ConvertedCase(name, part, partial(write_nrrd, image), relabelled, name)


def write_nrrd(source: Path, target: Path) -> None:
    """Write the image as NIfTI."""
    save_volume(read_volume(source), target)


def write_h5(source: Path, key: str, target: Path) -> None:
    """Write the "image" or "label" of an h5 file, whose axes are x, y, z."""
    with _h5py().File(source, "r") as file:
        array = np.asarray(file[key])
    array = array.astype(np.float32) if key == "image" else (array > 0).astype(np.uint8)
    save_volume(from_array(array.transpose(2, 1, 0), SPACING_MM), target)


def _h5py() -> Any:
    """The reader of h5 files.

    Raises:
        UserError: it is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise UserError(
            "mri_norm2.h5 needs h5py, which is not installed",
            fix="pip install semi_nnunet[convert]",
        ) from error
    return h5py
