"""BUSI: several masks of a picture are merged, normal pictures are an option."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.datasets.converting import Converter, cases, counts, read, write_picture

KINDS = {"benign": 6, "malignant": 5, "normal": 5}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root, rng = tmp_path / "Dataset_BUSI_with_GT", np.random.default_rng(0)
    for kind, number in KINDS.items():
        for i in range(1, number + 1):
            name = root / kind / f"{kind} ({i})"
            picture = rng.integers(0, 255, (20, 16, 3), dtype=np.uint8)
            write_picture(Path(f"{name}.png"), picture)
            write_picture(Path(f"{name}_mask.png"), block(0 if kind == "normal" else 3))
    write_picture(root / "benign/benign (4)_mask_1.png", block(12))
    return root


def block(first: int) -> np.ndarray:
    mask = np.zeros((20, 16), bool)
    mask[first : first + 4, 2:6] = bool(first)
    return mask


def test_test_cases_are_drawn_from_each_kind(source: Path, convert: Converter) -> None:
    dataset = convert("busi", source, "--incomplete")
    assert counts(dataset) == {"imagesTr": 9, "labelsTr": 9, "imagesTs": 2, "labelsTs": 2}
    assert {case.split("_")[0] for case in cases(dataset / "imagesTs")} == {"benign", "malignant"}
    assert "benign_006" in cases(dataset / "imagesTr") | cases(dataset / "imagesTs")


def test_all_masks_of_a_picture_are_merged(source: Path, convert: Converter) -> None:
    dataset = convert("busi", source, "--incomplete")
    mask = read(next(dataset.glob("labels*/benign_004.png")))
    np.testing.assert_array_equal(mask, block(3) | block(12))
    assert read(next(dataset.glob("images*/benign_004_0000.png"))).shape == (20, 16)


def test_normal_pictures_have_empty_labels(source: Path, convert: Converter) -> None:
    dataset = convert("busi", source, "--incomplete", "--normal")
    assert counts(dataset)["imagesTr"] == 13 and counts(dataset)["imagesTs"] == 3
    assert read(next(dataset.glob("labels*/normal_002.png"))).max() == 0


def test_missing_and_unexpected_files_are_reported(source: Path, convert: Converter) -> None:
    (source / "malignant/malignant (2)_mask.png").unlink()
    (source / "benign/benign (3).png").unlink()
    write_picture(source / "benign/lesion.png", block(0))
    message = convert.error("busi", source)
    assert "malignant (2)_mask.png: the file is" in message
    assert "benign (3).png: the file is" in message
    assert "benign/lesion.png: does not belong" in message
    assert "there must be 437, got 5" in message
