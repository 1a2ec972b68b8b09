"""Labelled data sets of text files, to be split."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

CASES = tuple("abcdef")


def make_source(
    root: Path, ending: str = ".nii.gz", channels: int = 2, cases: Sequence[str] = CASES
) -> Path:
    source = root / "Dataset040_Whole"
    for folder in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
        (source / folder).mkdir(parents=True)
    for case in cases:
        for channel in range(channels):
            name = f"{case}_{channel:04d}{ending}"
            (source / "imagesTr" / name).write_text(f"image {case} {channel}")
        (source / "labelsTr" / f"{case}{ending}").write_text(f"label {case}")
    (source / f"imagesTs/t_0000{ending}").write_text("test image")
    (source / f"labelsTs/t{ending}").write_text("test label")
    content = {"file_ending": ending, "numTraining": len(cases), "labels": {"background": 0}}
    (source / "dataset.json").write_text(json.dumps(content))
    return source


def names(folder: Path) -> set[str]:
    return {path.name.split(".")[0].split("_0")[0] for path in folder.glob("*")}
