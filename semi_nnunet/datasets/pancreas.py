"""MSD Pancreas: CT (Medical Segmentation Decathlon, Task07; Antonelli et al. 2022), 281 volumes.

    SRC/dataset.json                                            lists the training cases
    SRC/imagesTr/pancreas_001.nii.gz
    SRC/labelsTr/pancreas_001.nii.gz                            1 pancreas, 2 tumour
    SRC/imagesTs/...                                            no labels: not used

Pancreas and tumour become one class. 56 cases, drawn by --seed, are for the test, 225 for training,
195 of them unlabelled after `semi_nnunet split --labelled 30`. --size 256 resizes every slice to
256 x 256 with the same field of view.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from semi_nnunet.datasets.conversion import Conversion, ConvertedCase
from semi_nnunet.datasets.options import Seed, Size, Symlink
from semi_nnunet.datasets.source import DownloadFolder, Files, draw_test_cases
from semi_nnunet.datasets.volumes import (
    copy_or_link,
    map_label_values,
    read_volume,
    resize_slices,
    save_volume,
)
from semi_nnunet.raw.layout import DATASET_JSON

PUBLISHED = ()  # no lists of labelled cases
MERGED = {0: 0, 1: 1, 2: 1}
SCAN = r"(?P<id>pancreas_\d{3})"


def convert(
    source: Path,
    test: Annotated[int, Parameter(help="Number of test cases.")] = 56,
    size: Size = None,
    seed: Seed = 0,
    symlink: Symlink = False,
) -> Conversion:
    """Plan the conversion; raise a UserError for missing and unexpected files."""
    folder = DownloadFolder(source, "MSD Task07_Pancreas")
    files = folder.find(
        (".nii.gz",),
        image=rf"imagesTr/{SCAN}\.nii\.gz",
        label=rf"labelsTr/{SCAN}\.nii\.gz",
        test=r"imagesTs/pancreas_\d{3}\.nii\.gz",
    )
    scans = _listed(folder)
    folder.require(scans, files["image"], "imagesTr/{}.nii.gz")
    folder.require(scans, files["label"], "labelsTr/{}.nii.gz")
    for scan in sorted({*files["image"], *files["label"]} - {*scans} if scans else ()):
        folder.add_problem(scan, "dataset.json does not list it", "move it away")
    folder.raise_problems()
    test_cases = draw_test_cases(scans, test, seed, "--test")
    cases = [
        _case(files, scan, "Ts" if scan in test_cases else "Tr", size, symlink) for scan in scans
    ]
    reference = "Antonelli et al., Nature Communications 2022"
    return Conversion("Pancreas", ("CT",), ("pancreas",), cases, reference)


def _listed(folder: DownloadFolder) -> list[str]:
    """Return the training cases that dataset.json lists."""
    try:
        entries = json.loads((folder.root / DATASET_JSON).read_text("utf-8"))["training"]
        names = [re.fullmatch(rf".*/{SCAN}\.nii\.gz", entry["image"]) for entry in entries]
        return sorted({match["id"] for match in names if match})
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        what = f"must list the training cases under 'training' ({error})"
        folder.add_problem(DATASET_JSON, what, "copy it again from the download")
        return []


def _case(
    files: Mapping[str, Files], scan: str, part: str, size: int | None, symlink: bool
) -> ConvertedCase:
    image, label = files["image"][scan], files["label"][scan]
    step = (
        partial(copy_or_link, image, symlink)
        if size is None
        else partial(write_slices, image, size)
    )
    return ConvertedCase(scan, part, step, partial(write_label, label, size), scan)


def write_slices(source: Path, size: int, target: Path) -> None:
    """Write an image with resized slices."""
    save_volume(resize_slices(read_volume(source), size, is_label=False), target)


def write_label(source: Path, size: int | None, target: Path) -> None:
    """Write a label whose classes are merged."""
    label = map_label_values(read_volume(source), MERGED)
    save_volume(label if size is None else resize_slices(label, size, is_label=True), target)
