"""Folders of predictions and references, and the command that measures them."""

import json
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from semi_nnunet.cli.main import main

LABELS = {"background": 0, "liver": 1, "tumour": 2}
REGIONS = {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}


def write(path: Path, array: np.ndarray, spacing: tuple[float, ...] = (0.8, 1.0, 3.0)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array.astype(np.uint8))
    if len(spacing) == array.ndim:
        image.SetSpacing(spacing)
    sitk.WriteImage(image, str(path))


def folders(root: Path, labels: dict = LABELS, ending: str = ".nii.gz") -> tuple[Path, Path]:
    """Write three predictions and references, and a dataset.json next to the references."""
    rng = np.random.default_rng(0)
    description = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 0}
    if "whole" in labels:
        description["regions_class_order"] = [1, 2]
    (root / "data").mkdir(parents=True)
    description["file_ending"] = ending
    (root / "data" / "dataset.json").write_text(json.dumps(description))
    for case in "abc":
        shape = (8, 16, 16) if ending == ".nii.gz" else (16, 16)
        reference = rng.integers(0, 3, shape)
        prediction = np.where(rng.random(shape) < 0.8, reference, rng.integers(0, 3, shape))
        if "ignore" in labels:
            reference[..., :4] = 3
        write(root / "pred" / f"{case}{ending}", prediction)
        write(root / "data" / "labelsTs" / f"{case}{ending}", reference)
    return root / "pred", root / "data" / "labelsTs"


def hearts(root: Path, labels: dict = LABELS) -> tuple[Path, Path]:
    """Write three references in one piece, and predictions; those of b and c have a far piece."""
    description = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 0}
    if "whole" in labels:
        description["regions_class_order"] = [1, 2]
    (root / "data").mkdir(parents=True)
    description["file_ending"] = ".nii.gz"
    (root / "data" / "dataset.json").write_text(json.dumps(description))
    for number, case in enumerate("abc"):
        reference = np.zeros((8, 16, 16))
        reference[2:5, 3:8, 3:8], reference[3, 4:6, 4:6] = 1, 2
        prediction = np.roll(reference, 1, axis=1)
        prediction[7, 12:, 12 : 12 + 2 * number] = 1 + number % 2
        write(root / "pred" / f"{case}.nii.gz", prediction)
        write(root / "data" / "labelsTs" / f"{case}.nii.gz", reference)
    return root / "pred", root / "data" / "labelsTs"


def evaluate(predictions: Path, references: Path, *more: str) -> int:
    processes = () if "-np" in more else ("-np", "1")
    words = ["-i", str(predictions), "-r", str(references), *processes, *more]
    return main(["evaluate", *words])
