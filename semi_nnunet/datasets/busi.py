"""BUSI: breast ultrasound (Al-Dhabyani et al., Data in Brief 2020), 437 benign, 210 malignant.

    SRC/benign/benign (1).png                                   SRC may be Dataset_BUSI_with_GT
    SRC/benign/benign (1)_mask.png                              and ..._mask_1.png, ...: merged
    SRC/malignant/..., SRC/normal/...                           likewise

80 % are for training, 20 % for the test, drawn by --seed among each kind. Benign and malignant
lesions are one class. --normal adds the 133 pictures without a lesion. Hide labels by
`semi_nnunet split`. Some pictures of BUSI are there twice: an unlabelled one that equals a labelled
or test case is refused, and `semi_nnunet preprocess --skip-bad` sets it aside.
"""

from __future__ import annotations

import argparse
import re
from functools import partial
from pathlib import Path

from semi_nnunet.datasets.conversion import Conversion, ConvertedCase
from semi_nnunet.datasets.options import add_incomplete, add_seed, add_size, add_test_percent
from semi_nnunet.datasets.pictures import grey, mask
from semi_nnunet.datasets.source import Source, held_out_percent

PUBLISHED = ()  # there are no lists of labelled cases
NUMBERS = {"benign": 437, "malignant": 210, "normal": 133}
PICTURE = r"(?P<id>(?:benign|malignant|normal) \(\d+\)"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--normal", action="store_true", help="also the pictures without a lesion")
    add_test_percent(parser)
    add_size(parser)
    add_seed(parser)
    add_incomplete(parser)


def convert(
    source: Path,
    normal: bool = False,
    test_percent: int = 20,
    size: int | None = None,
    seed: int = 0,
    incomplete: bool = False,
) -> Conversion:
    """Plan the conversion; raises UserError for missing and unexpected files."""
    folder = Source(source, "BUSI")
    found = folder.find(
        (".png",), image=rf"{PICTURE})\.png", mask=rf"{PICTURE}_mask(?:_\d+)?)\.png"
    )
    masks: dict[str, list[Path]] = {}
    for name, path in found["mask"].items():
        masks.setdefault(name.split("_mask")[0], []).append(path)
    first = {name: paths[0] for name, paths in masks.items()}
    folder.need_pairs(found["image"], first, "{}.png", "{}_mask.png")
    cases = []
    for kind in ("benign", "malignant", *(["normal"] if normal else [])):
        images = {name: path for name, path in found["image"].items() if name.startswith(kind)}
        folder.need_number(len(images), NUMBERS[kind], f"{kind} pictures", incomplete)
        if folder.problems:
            continue
        tested = held_out_percent(images, test_percent, seed, f"{kind} test cases")
        for name, image in images.items():
            part = "Ts" if name in tested else "Tr"
            label = partial(mask, masks[name], image, size)
            cases.append(
                ConvertedCase(_case_name(name), part, partial(grey, image, size), label, name)
            )
    folder.check()
    reference = "Al-Dhabyani et al., Data in Brief 2020"
    return Conversion("BUSI", ("ultrasound",), ("lesion",), cases, reference, (), ".png")


def _case_name(name: str) -> str:
    """ "benign (1)" becomes "benign_001"."""
    kind, number = re.findall(r"\w+", name)
    return f"{kind}_{int(number):03d}"
