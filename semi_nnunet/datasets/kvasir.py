"""Kvasir-SEG: colour endoscopy of polyps (Jha et al., MMM 2020), 1000 pictures.

    SRC/images/cju0qkwl35piu0993l0dewei2.jpg
    SRC/masks/cju0qkwl35piu0993l0dewei2.jpg                     white is polyp; JPEG, so thresholded

80 % are for training, 20 % for the test, drawn by --seed. Hide labels with `semi_nnunet split`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from semi_nnunet.datasets.conversion import Conversion, ConvertedCase
from semi_nnunet.datasets.options import Incomplete, Seed, Size, TestPercent
from semi_nnunet.datasets.pictures import write_colour, write_mask
from semi_nnunet.datasets.source import DownloadFolder, draw_test_percent

PUBLISHED = ()  # no lists of labelled cases
PICTURES = 1000
ENDING = r"\.(?:jpg|jpeg|png)"


def convert(
    source: Path,
    test_percent: TestPercent = 20,
    size: Size = None,
    seed: Seed = 0,
    incomplete: Incomplete = False,
) -> Conversion:
    """Plan the conversion; raise a UserError for missing and unexpected files."""
    folder = DownloadFolder(source, "Kvasir-SEG")
    files = folder.find(
        (".jpg", ".jpeg", ".png"),
        image=rf"images/(?P<id>[^/]+){ENDING}",
        mask=rf"masks/(?P<id>[^/]+){ENDING}",
    )
    images, masks = files["image"], files["mask"]
    folder.require_pairs(images, masks, "images/{}.jpg", "masks/{}.jpg")
    folder.require_number(len(images), PICTURES, "pictures", incomplete)
    folder.raise_problems()
    test_cases = draw_test_percent(images, test_percent, seed, "number of test cases")
    cases = [
        ConvertedCase(
            name,
            "Ts" if name in test_cases else "Tr",
            partial(write_colour, image, size),
            partial(write_mask, [masks[name]], image, size),
            f"images/{image.name}",
        )
        for name, image in images.items()
    ]
    reference = "Jha et al., MMM 2020"
    return Conversion("KvasirSEG", ("R", "G", "B"), ("polyp",), cases, reference, (), ".png")
