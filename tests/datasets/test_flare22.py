"""FLARE22: labelled and unlabelled images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from semi_nnunet.verify.integrity import find_dataset_problems
from tests.datasets.converting import Converter, cases, counts, read, write_volume


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "FLARE22"
    labelled, tuning = root / "Training/FLARE22_LabeledCase50", root / "Validation"
    for i in (1, 2, 3):
        write_volume(labelled / f"images/FLARE22_Tr_{i:04d}_0000.nii.gz", i)
        write_volume(labelled / f"labels/FLARE22_Tr_{i:04d}.nii.gz", labels=range(14))
        write_volume(tuning / f"images/FLARETs_{i:04d}_0000.nii.gz", 10 + i)
        write_volume(tuning / f"labels/FLARETs_{i:04d}.nii.gz", labels=range(14))
    for i in (1, 2, 1999, 2000):
        folder = f"Training/FLARE22_UnlabeledCase{'1-1000' if i < 1001 else '1001-2000'}"
        write_volume(root / folder / f"Case_{i:05d}_0000.nii.gz", 100 + i)
    return root


def test_images_without_labels_go_to_images_un(source: Path, convert: Converter) -> None:
    dataset = convert("flare22", source, "--incomplete")
    assert counts(dataset) == {
        **{"imagesTr": 3, "labelsTr": 3, "imagesUn": 4, "imagesTs": 3, "labelsTs": 3}
    }
    assert cases(dataset / "imagesUn") == {f"Case_{i:05d}" for i in (1, 2, 1999, 2000)}
    assert find_dataset_problems(dataset) == []
    original = source / "Training/FLARE22_UnlabeledCase1001-2000/Case_01999_0000.nii.gz"
    copy = dataset / "imagesUn/Case_01999_0000.nii.gz"
    np.testing.assert_array_equal(read(copy), read(original))


def test_tuning_labels_may_be_missing_completely(source: Path, convert: Converter) -> None:
    labels = sorted((source / "Validation/labels").iterdir())
    labels[0].unlink()
    message = convert.error("flare22", source, "--incomplete")
    assert "FLARETs_0001.nii.gz: the file is" in message
    for path in labels[1:]:
        path.unlink()
    dataset = convert("flare22", source, "--incomplete", "--symlink")
    assert "labelsTs" not in counts(dataset)
    assert (dataset / "imagesUn/Case_00001_0000.nii.gz").is_symlink()


def test_an_incomplete_download_needs_an_option(source: Path, convert: Converter) -> None:
    message = convert.error("flare22", source)
    assert "there must be 50, got 3" in message and "there must be 2000, got 4" in message
    assert "--incomplete" in message
