"""COVID-19 CT: slices of lung CT with the mask of lesions, some 2700 pictures of several sources.

    SRC/frames/Jun_coronacases_case1_119.png                    or images/
    SRC/masks/Jun_coronacases_case1_119.png                     white is lesion

About 80 % are for training, 20 % for the test, drawn by --seed. What precedes the last number of a
name is one scan: all its slices are for training, or all for the test (the published split is of
single slices, whose neighbours are nearly equal). Hide labels by `semi_nnunet split`.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Collection
from functools import partial
from pathlib import Path

from semi_nnunet.datasets.conversion import Conversion, ConvertedCase
from semi_nnunet.datasets.options import add_seed, add_size, add_test_percent
from semi_nnunet.datasets.pictures import grey, mask
from semi_nnunet.datasets.source import Source, shuffled
from semi_nnunet.raw.folds import match_patient
from semi_nnunet.util.errors import UserError

PUBLISHED = ()  # there are no lists of labelled cases
ENDING = r"\.(?:png|jpg|jpeg)"
PATIENT = r"(.*?)[_-]?\d*$"  # the scan: a name without its last number


def add_options(parser: argparse.ArgumentParser) -> None:
    add_test_percent(parser)
    add_size(parser)
    add_seed(parser)


def convert(
    source: Path, test_percent: int = 20, size: int | None = None, seed: int = 0
) -> Conversion:
    """Plan the conversion; raises UserError for missing and unexpected files."""
    folder = Source(source, "the COVID-19 CT slices")
    found = folder.find(
        (".png", ".jpg", ".jpeg"),
        image=rf"(?:frames|images)/(?P<id>[^/]+){ENDING}",
        mask=rf"masks/(?P<id>[^/]+){ENDING}",
    )
    images, masks = found["image"], found["mask"]
    folder.need_pairs(images, masks, "frames/{}.png", "masks/{}.png")
    for name in images:
        if not scan_of(name):
            what = "the name must begin with that of its scan, which is kept together"
            folder.note(folder.within(images[name]), what, "rename it, and its mask: SCAN_NUMBER")
    if not images:
        folder.note("frames", "there are no pictures", "give the folder that holds frames, masks")
    folder.check()
    tested = test_scans(images, test_percent, seed)
    cases = [
        ConvertedCase(
            name,
            "Ts" if scan_of(name) in tested else "Tr",
            partial(grey, image, size),
            partial(mask, [masks[name]], image, size),
            f"{image.parent.name}/{image.name}",
        )
        for name, image in images.items()
    ]
    reference = "COVID-19 CT lesion segmentation, several public sources"
    labels, channels = ("lesion",), ("slice_of_CT",)
    return Conversion("COVID_CT", channels, labels, cases, reference, (), ".png", PATIENT)


def scan_of(name: str) -> str:
    """The scan a slice belongs to: its name without the last number; "" of a number alone."""
    return match_patient(re.compile(PATIENT), name)


def test_scans(names: Collection[str], percent: int, seed: int) -> set[str]:
    """Random scans that hold about ``percent`` of the slices, never more than half too many.

    Raises:
        UserError: all slices are of one scan.
    """
    sizes: dict[str, int] = {}
    for name in names:
        sizes[scan_of(name)] = sizes.get(scan_of(name), 0) + 1
    wanted = len(names) * percent / 100
    chosen: set[str] = set()
    for scan in shuffled(sizes, seed):
        taken = sum(sizes[one] for one in chosen)
        if taken < wanted and taken + sizes[scan] <= 1.5 * wanted:
            chosen.add(scan)
    if not chosen:
        raise UserError(
            f"no scan is small enough for a test set of {percent} %: the {len(names)} slices are "
            f"of {len(sizes)} scans (names without their last number)",
            fix="a larger --test-percent",
        )
    return chosen
