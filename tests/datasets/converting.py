"""Write tiny files in the layouts of published data sets, and check the converted data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import ArrayLike
from PIL import Image
from skimage import io

from semi_nnunet.cli.main import main
from semi_nnunet.raw.folds import build_patient_finder
from semi_nnunet.verify.integrity import (
    check_dataset,
    find_dataset_problems,
    find_duplicate_problems,
)

SPACING = (0.5, 0.75, 2.0)


class Converter:
    """Runs ``semi_nnunet convert`` in a raw folder of one test."""

    def __init__(self, raw: Path, capsys: pytest.CaptureFixture[str]):
        self.raw, self.capsys = raw, capsys

    def __call__(self, name: str, source: Path, *options: object, number: int = 700) -> Path:
        """Convert twice, check the result, and return the data set."""
        command = ["convert", name, str(source), "--new-id", str(number), "-np", "1"]
        command += [str(option) for option in options]
        assert main(command) == 0, self.capsys.readouterr().err
        (dataset,) = self.raw.glob(f"Dataset{number}_*")
        assert_sound(dataset)
        times = {path: path.lstat().st_mtime_ns for path in dataset.rglob("*")}
        assert main(command) == 0
        assert {path: path.lstat().st_mtime_ns for path in dataset.rglob("*")} == times
        assert "nothing to do" in self.capsys.readouterr().out
        assert not list(self.raw.glob(".*"))
        return dataset

    def error(self, name: str, source: Path, *options: object) -> str:
        """Return the message of a conversion that must fail without leaving files."""
        paths = sorted(self.raw.iterdir())
        number = () if "--new-id" in options else ("--new-id", "701")
        command = ["convert", name, str(source), *number, "-np", "1", *map(str, options)]
        assert main(command) == 2
        assert sorted(self.raw.iterdir()) == paths
        return self.capsys.readouterr().err

    def split(self, dataset: Path, labelled: int) -> Path:
        """Hide labels by the published list, check the new data set and return it."""
        subsets = str(dataset / "labelled_subsets.json")
        command = ["split", "-d", dataset.name, "--new-id", "702", "--cases", subsets]
        assert main([*command, "--labelled", str(labelled)]) == 0
        (new,) = self.raw.glob("Dataset702_*")
        assert find_dataset_problems(new) == []
        reports = check_dataset(new, 1, show_progress=False)
        assert find_duplicate_problems(reports) == {}
        return new


def assert_sound(dataset: Path) -> None:
    """Assert that a data set has no problems; a completely labelled one may lack imagesUn."""
    problems = find_dataset_problems(dataset)
    if not (dataset / "imagesUn").exists():
        problems = [problem for problem in problems if problem.where != "imagesUn"]
    assert problems == []
    for report in check_dataset(dataset, 1, show_progress=False):
        assert report.problems == ()
    for labels in dataset.glob("labels*"):
        images = {path.name.replace("_0000.", ".") for path in list_images(dataset, labels)}
        assert images == {path.name for path in labels.iterdir()}


def list_images(dataset: Path, labels: Path) -> list[Path]:
    return list((dataset / labels.name.replace("labels", "images")).iterdir())


def write_volume(
    path: Path,
    seed: int = 0,
    labels: ArrayLike | None = None,
    shape: tuple[int, ...] = (4, 6, 8),
    dtype: Any = np.int16,
) -> np.ndarray:
    """Write an image of noise, or a label with all of the values; return it (..., z, y, x)."""
    rng = np.random.default_rng(seed)
    if labels is None:
        array = rng.integers(-100, 400, shape).astype(dtype)
    else:
        array = np.resize(np.asarray(labels), shape).astype(dtype)
    image = sitk.GetImageFromArray(array, isVector=False)
    image.SetSpacing((*SPACING, 1.0)[: len(shape)])
    image.SetOrigin((10.0, -5.0, 3.0, 0.0)[: len(shape)])
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))
    return array


def write_picture(path: Path, array: np.ndarray, **options: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


def read(path: Path) -> np.ndarray:
    """Read the voxels of a volume (z, y, x) or of a picture."""
    if path.suffix == ".png":
        return np.asarray(io.imread(path))
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def cases(folder: Path) -> set[str]:
    """Return the names of the cases in a folder of images or labels."""
    names = {path.name.removesuffix(".nii.gz").removesuffix(".png") for path in folder.glob("*")}
    return {name.removesuffix("_0000") if "images" in folder.name else name for name in names}


def patients(dataset: Path, part: str) -> set[str]:
    """Return the patients of a part such as "Tr"."""
    patient_of = build_patient_finder(json.loads((dataset / "dataset.json").read_text()))
    return set(map(patient_of, cases(dataset / f"images{part}")))


def counts(dataset: Path) -> dict[str, int]:
    return {path.name: len(list(path.iterdir())) for path in dataset.iterdir() if path.is_dir()}


def subsets(dataset: Path) -> dict[str, list[str]]:
    return dict(json.loads((dataset / "labelled_subsets.json").read_text()))
