"""A raw and preprocessed data set of one's own, to be changed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from semi_nnunet.preprocessing.prepare import prepare_for_training


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
        planner = "ExperimentPlanner"
        return prepare_for_training(self.number, ["2d"], None, planner, 1, skip_bad, skip_outliers)


def names(folder: Path) -> list[str]:
    return sorted(path.name.removesuffix("_0000.nii.gz") for path in folder.iterdir())
