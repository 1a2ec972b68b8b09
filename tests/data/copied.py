"""A raw and preprocessed data set of one's own, to be changed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from semi_nnunet.preprocessing.prepare import PrepareOptions, prepare_for_training


class Copy:
    """A raw and preprocessed data set of one's own."""

    def __init__(self, dataset: Any, root: Path):
        self.raw = root / "raw" / dataset.name
        self.preprocessed = root / "preprocessed" / dataset.name
        self.number = str(dataset.number)
        shutil.copytree(dataset.raw, self.raw)
        shutil.copytree(dataset.preprocessed, self.preprocessed)

    def prepare(
        self, skip_bad: bool = False, skip_outliers: bool = False
    ) -> dict[str, tuple[int, int]]:
        options = PrepareOptions(["2d"], skip_bad=skip_bad, skip_outliers=skip_outliers)
        return prepare_for_training(self.number, options)


def names(folder: Path) -> list[str]:
    return sorted(path.name.removesuffix("_0000.nii.gz") for path in folder.iterdir())
