"""FLARE23: labels of some organs, and images without labels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from semi_nnunet.datasets.flare23 import LABELS
from semi_nnunet.raw.classes import AnnotatedClasses
from tests.datasets.converting import Converter, cases, counts, write_volume

LABEL_VALUES = {"FLARE23_0001": range(15), "FLARE23_0002": [0, 1, 14], "FLARE23_0003": [0, 2, 13]}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "FLARE23"
    for number, (case, values) in enumerate(LABEL_VALUES.items()):
        write_volume(root / f"imagesTr2200/{case}_0000.nii.gz", number)
        write_volume(root / f"labelsTr2200/{case}.nii.gz", labels=values)
    for number in (4, 5):
        folder = "unlabelTr1800" if number == 4 else "more/unlabeledTr1800"
        write_volume(root / folder / f"FLARE23_{number:04d}_0000.nii.gz", number)
    write_volume(root / "validation/imagesVal/FLARETs_0001_0000.nii.gz", 9)
    write_volume(root / "validation/labelsVal/FLARETs_0001.nii.gz", labels=range(13))
    return root


def test_a_label_annotates_the_classes_it_contains(source: Path, convert: Converter) -> None:
    dataset = convert("flare23", source, "--incomplete")
    assert counts(dataset) == {
        **{"imagesTr": 3, "labelsTr": 3, "imagesUn": 2, "imagesTs": 1, "labelsTs": 1}
    }
    assert cases(dataset / "imagesUn") == {"FLARE23_0004", "FLARE23_0005"}
    description = json.loads((dataset / "dataset.json").read_text())
    assert description["annotated"] == {
        "FLARE23_0002": ["liver", "tumour"],
        "FLARE23_0003": ["right_kidney", "left_kidney"],
    }
    annotated = AnnotatedClasses.of(description)
    assert annotated is not None
    assert annotated.names("FLARE23_0001") == LABELS  # complete
    assert annotated.names("FLARETs_0001") == LABELS  # although it has no tumour


def test_a_label_without_a_class_is_reported(source: Path, convert: Converter) -> None:
    write_volume(source / "labelsTr2200/FLARE23_0002.nii.gz", labels=[0])
    message = convert.error("flare23", source, "--incomplete")
    assert "FLARE23_0002" in message and "its label shows no class" in message


def test_missing_files_are_reported(source: Path, convert: Converter) -> None:
    (source / "labelsTr2200/FLARE23_0002.nii.gz").unlink()
    message = convert.error("flare23", source)
    assert "FLARE23_0002.nii.gz: the file is" in message
    assert "there must be 2200, got 3" in message and "there must be 1800, got 2" in message
