"""COVID-19 CT: slices of lung CT with the mask of lesions, some 2700 pictures of several sources.

    SRC/frames/Jun_coronacases_case1_119.png                    or images/
    SRC/masks/Jun_coronacases_case1_119.png                     white is lesion

About 80 % are for training, 20 % for the test, drawn by --seed. The name without its last number
identifies the scan: all slices of a scan are for training, or all for the test (the published split
is of single slices, whose neighbours are nearly equal). Hide labels with `semi_nnunet split`.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import partial
from pathlib import Path

from semi_nnunet.datasets.conversion import Conversion, ConvertedCase
from semi_nnunet.datasets.options import Seed, Size, TestPercent
from semi_nnunet.datasets.pictures import write_grey, write_mask
from semi_nnunet.datasets.source import DownloadFolder, shuffle_names
from semi_nnunet.raw.folds import match_patient
from semi_nnunet.util.errors import UserError

PUBLISHED = ()  # no lists of labelled cases
ENDING = r"\.(?:png|jpg|jpeg)"
PATIENT = r"(.*?)[_-]?\d*$"  # the scan: the name without its last number


def convert(
    source: Path, test_percent: TestPercent = 20, size: Size = None, seed: Seed = 0
) -> Conversion:
    """Plan the conversion; raise a UserError for missing and unexpected files."""
    folder = DownloadFolder(source, "the COVID-19 CT slices")
    files = folder.find(
        (".png", ".jpg", ".jpeg"),
        image=rf"(?:frames|images)/(?P<id>[^/]+){ENDING}",
        mask=rf"masks/(?P<id>[^/]+){ENDING}",
    )
    images, masks = files["image"], files["mask"]
    folder.require_pairs(images, masks, "frames/{}.png", "masks/{}.png")
    for name in images:
        if not find_scan(name):
            what = "the name must begin with the name of the scan"
            folder.add_problem(
                folder.relative_name(images[name]), what, "rename it, and its mask: SCAN_NUMBER"
            )
    if not images:
        folder.add_problem("frames", "there are no pictures", "give the folder of frames and masks")
    folder.raise_problems()
    test_scans = draw_test_scans(images, test_percent, seed)
    cases = [
        ConvertedCase(
            name,
            "Ts" if find_scan(name) in test_scans else "Tr",
            partial(write_grey, image, size),
            partial(write_mask, [masks[name]], image, size),
            f"{image.parent.name}/{image.name}",
        )
        for name, image in images.items()
    ]
    reference = "COVID-19 CT lesion segmentation, several public sources"
    labels, channels = ("lesion",), ("slice_of_CT",)
    return Conversion("COVID_CT", channels, labels, cases, reference, (), ".png", PATIENT)


def find_scan(name: str) -> str:
    """Return the scan of a slice: the name without the last number.

    >>> find_scan("coronacases_case1_119")
    'coronacases_case1'
    """
    return match_patient(re.compile(PATIENT), name)


def draw_test_scans(names: Collection[str], percent: int, seed: int) -> set[str]:
    """Draw scans with about ``percent`` of the slices, at most 1.5 times as many.

    Raises:
        UserError: every scan has too many slices.
    """
    sizes: dict[str, int] = {}
    for name in names:
        sizes[find_scan(name)] = sizes.get(find_scan(name), 0) + 1
    target = len(names) * percent / 100
    scans: set[str] = set()
    for scan in shuffle_names(sizes, seed):
        slices = sum(sizes[name] for name in scans)
        if slices < target and slices + sizes[scan] <= 1.5 * target:
            scans.add(scan)
    if not scans:
        raise UserError(
            f"no scan is small enough for a test set of {percent} %: the {len(names)} slices "
            f"belong to {len(sizes)} scans (names without their last number)",
            fix="raise --test-percent",
        )
    return scans
