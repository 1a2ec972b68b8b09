"""RETOUCH: retinal OCT, three vendors (Bogunovic et al., TMI 2019), 70 training volumes.

    SRC/.../RETOUCH-TrainingSet-Cirrus/TRAIN001/oct.mhd         oct.raw, reference.mhd and .raw
    SRC/.../RETOUCH-TrainingSet-Spectralis/TRAIN025/...         24, 24 and 22 volumes of
    SRC/.../RETOUCH-TrainingSet-Topcon/TRAIN049/...             Cirrus, Spectralis and Topcon

Slices become grey pictures of 256 x 256, masks by nearest neighbour. The 430 labelled, 2148
unlabelled and 107 validation slices of the published experiment are unknown. Here complete volumes,
one of each vendor, are for the test, so that no test slice has its neighbour in training: 107
slices, evenly spaced in them, and 2578 in all others. labelled_subsets.json has the first 430 of
these: volume after volume, the vendors in turn, in an order drawn by --seed. Of the last of these
volumes, some slices stay unlabelled. No choice depends on the labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Annotated

import numpy as np
import SimpleITK as sitk
from cyclopts import Parameter

from semi_nnunet.datasets.conversion import Conversion, ConvertedCase
from semi_nnunet.datasets.options import SLICE_SIZE, Incomplete, Seed
from semi_nnunet.datasets.pictures import resize_picture, save_picture
from semi_nnunet.datasets.source import DownloadFolder, Files, require_between, shuffle_names
from semi_nnunet.raw.readers import BrokenFileError
from semi_nnunet.util.errors import UserError

VOLUMES = {"Cirrus": 24, "Spectralis": 24, "Topcon": 22}
LABELS = ("intraretinal_fluid", "subretinal_fluid", "pigment_epithelial_detachment")
PATIENT = "[A-Za-z]+_TRAIN[0-9]{3}"
DOMAIN = "([A-Za-z]+)_"  # the vendor
VOLUME = r"RETOUCH-TrainingSet-(?P<id>(?:Cirrus|Spectralis|Topcon)/TRAIN\d{3})"
Slices = list[tuple[str, int]]  # volume, number


def convert(
    source: Path,
    labelled: Annotated[int, Parameter(help="Number of slices of labelled_subsets.json.")] = 430,
    training: Annotated[int, Parameter(help="Number of training slices.")] = 2578,
    test: Annotated[int, Parameter(help="Number of test slices.")] = 107,
    size: Annotated[int, SLICE_SIZE] = 256,
    seed: Seed = 0,
    incomplete: Incomplete = False,
) -> Conversion:
    """Plan the conversion; raise a UserError for missing and unexpected files."""
    folder = DownloadFolder(source, "RETOUCH")
    files = folder.find(
        (".mhd",),
        oct=rf"{VOLUME}/oct\.mhd",
        reference=rf"{VOLUME}/reference\.mhd",
        test=r"RETOUCH-TestSet-\w+/TEST\d{3}/oct\.mhd",
    )
    folder.require_pairs(files["oct"], files["reference"], "{}/oct.mhd", "{}/reference.mhd")
    for volume, path in (*files["oct"].items(), *files["reference"].items()):
        raw = path.with_suffix(".raw")
        folder.require([volume], {volume: raw} if raw.is_file() else {}, f"{{}}/{raw.name}")
    order = {vendor: _of_vendor(files["oct"], vendor, seed) for vendor in VOLUMES}
    for vendor, volumes in order.items():
        folder.require_number(len(volumes), VOLUMES[vendor], f"{vendor} volumes", incomplete)
    folder.raise_problems()
    test_volumes = [volumes[0] for volumes in order.values()]
    rest = [v for turn in zip_longest(*(v[1:] for v in order.values())) for v in turn if v]
    test_slices = space_evenly(_slices(files["oct"], test_volumes), test, "--test")
    slices = space_evenly(_slices(files["oct"], rest), training, "--training")
    require_between("--labelled", labelled, len(slices))
    cases = [
        ConvertedCase(
            _name(volume, number),
            part,
            partial(write_slice, files["oct"][volume], number, size),
            partial(write_reference_slice, files["reference"][volume], number, size),
            f"{volume}, slice {number}",
        )
        for part, numbered in (("Tr", slices), ("Ts", test_slices))
        for volume, number in numbered
    ]
    subset = [_name(volume, number) for volume, number in slices[:labelled]]
    reference = "Bogunovic et al., TMI 2019"
    return Conversion(
        "RETOUCH", ("OCT",), LABELS, cases, reference, [subset], ".png", PATIENT, domain=DOMAIN
    )


def _of_vendor(volumes: Files, vendor: str, seed: int) -> list[str]:
    return shuffle_names([volume for volume in volumes if volume.startswith(f"{vendor}/")], seed)


def _name(volume: str, number: int) -> str:
    return f"{volume.replace('/', '_')}_{number:03d}"


def _slices(volumes: Files, names: Sequence[str]) -> Slices:
    return [(name, z) for name in names for z in range(_reader(volumes[name]).GetSize()[2])]


def space_evenly(slices: Slices, number: int, option: str) -> Slices:
    """Return ``number`` of the slices at equal distances.

    Raises:
        UserError: there are fewer; ``option`` sets the number.
    """
    require_between(option, number, len(slices))
    return [slices[int(i)] for i in np.floor(np.arange(number) * len(slices) / number)]


def _reader(path: Path) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise UserError(f"{path} cannot be read", fix="copy it again from the download") from error
    if (axes := reader.GetDimension()) != 3:
        what = f"{path} must be a volume of 3 axes, got {axes}"
        raise UserError(what, fix="copy it again from the download")
    return reader


def read_slice(path: Path, number: int) -> np.ndarray:
    """Read a slice (y, x) without the rest of the volume."""
    reader = _reader(path)
    width, height, depth = reader.GetSize()
    if not 0 <= number < depth:
        raise BrokenFileError(f"{path.name} must have a slice {number}, got {depth} slices")
    reader.SetExtractIndex([0, 0, number])
    reader.SetExtractSize([width, height, 0])
    return np.asarray(sitk.GetArrayFromImage(reader.Execute()))


def write_slice(source: Path, number: int, size: int, target: Path) -> None:
    """Write a slice of an OCT volume; more than 8 bits are scaled to the range of the volume."""
    picture = read_slice(source, number)
    if picture.dtype != np.uint8:
        volume = sitk.GetArrayFromImage(sitk.ReadImage(str(source)))
        low, high = float(volume.min()), float(volume.max())
        scaled = (picture.astype(np.float64) - low) / max(high - low, 1e-8) * 255
        picture = scaled.round().astype(np.uint8)
    save_picture(resize_picture(picture, size, is_label=False), target)


def write_reference_slice(source: Path, number: int, size: int, target: Path) -> None:
    """Write a slice of a reference segmentation."""
    picture = read_slice(source, number)
    if not np.isin(picture, range(len(LABELS) + 1)).all():
        what = f"label values must be 0 to {len(LABELS)}, got {np.unique(picture)[:10]}"
        raise BrokenFileError(what, "correct the label")
    save_picture(resize_picture(picture.astype(np.uint8), size, is_label=True), target)
