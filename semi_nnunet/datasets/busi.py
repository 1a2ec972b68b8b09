"""BUSI: breast ultrasound (Al-Dhabyani et al., Data in Brief 2020), 437 benign, 210 malignant.

    SRC/benign/benign (1).png                                   SRC may be Dataset_BUSI_with_GT
    SRC/benign/benign (1)_mask.png                              and ..._mask_1.png, ...: merged
    SRC/malignant/..., SRC/normal/...                           in the same way

80 % are for training, 20 % for the test, drawn by --seed among each kind. Benign and malignant
lesions are one class. --normal adds the 133 pictures without a lesion. Hide labels with
`semi_nnunet split`. BUSI contains some pictures twice: preprocessing refuses unlabelled copies of
labelled or test cases, and `semi_nnunet preprocess --skip-bad` skips them.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from semi_nnunet.datasets.conversion import Conversion, ConvertedCase
from semi_nnunet.datasets.options import Incomplete, Seed, Size, TestPercent
from semi_nnunet.datasets.pictures import write_grey, write_mask
from semi_nnunet.datasets.source import DownloadFolder, draw_test_percent

PUBLISHED = ()  # no lists of labelled cases
NUMBERS = {"benign": 437, "malignant": 210, "normal": 133}
PICTURE = r"(?P<id>(?:benign|malignant|normal) \(\d+\)"


def convert(
    source: Path,
    normal: Annotated[bool, Parameter(help="Also the pictures without a lesion.")] = False,
    test_percent: TestPercent = 20,
    size: Size = None,
    seed: Seed = 0,
    incomplete: Incomplete = False,
) -> Conversion:
    """Plan the conversion; raise a UserError for missing and unexpected files."""
    folder = DownloadFolder(source, "BUSI")
    files = folder.find(
        (".png",), image=rf"{PICTURE})\.png", mask=rf"{PICTURE}_mask(?:_\d+)?)\.png"
    )
    masks: dict[str, list[Path]] = {}
    for name, path in files["mask"].items():
        masks.setdefault(name.split("_mask")[0], []).append(path)
    first = {name: paths[0] for name, paths in masks.items()}
    folder.require_pairs(files["image"], first, "{}.png", "{}_mask.png")
    cases = []
    for kind in ("benign", "malignant", *(["normal"] if normal else [])):
        images = {name: path for name, path in files["image"].items() if name.startswith(kind)}
        folder.require_number(len(images), NUMBERS[kind], f"{kind} pictures", incomplete)
        if folder.problems:
            continue
        test_cases = draw_test_percent(images, test_percent, seed, f"{kind} test cases")
        for name, image in images.items():
            part = "Ts" if name in test_cases else "Tr"
            label = partial(write_mask, masks[name], image, size)
            cases.append(
                ConvertedCase(_case_name(name), part, partial(write_grey, image, size), label, name)
            )
    folder.raise_problems()
    reference = "Al-Dhabyani et al., Data in Brief 2020"
    return Conversion("BUSI", ("ultrasound",), ("lesion",), cases, reference, (), ".png")


def _case_name(name: str) -> str:
    """Return the name of a case: "benign (1)" becomes "benign_001"."""
    kind, number = re.findall(r"\w+", name)
    return f"{kind}_{int(number):03d}"
