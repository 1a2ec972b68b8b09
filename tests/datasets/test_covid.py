"""COVID-19 CT: no scan is both for training and for the test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from semi_nnunet.datasets.covid import draw_test_scans, find_scan
from semi_nnunet.util.errors import UserError
from tests.datasets.converting import Converter, cases, counts, patients, read, write_picture

draw_test_scans.__test__ = False  # type: ignore[attr-defined]
SCANS = {
    "Jun_coronacases_case1": 6,
    "Morozov_study_0255": 3,
    "bjorke": 5,
    "Jun_case2": 6,
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root, rng = tmp_path / "COVID", np.random.default_rng(0)
    for scan, number in SCANS.items():
        for i in range(number):
            picture = rng.integers(0, 255, (12, 12, 4), dtype=np.uint8)
            mask = np.zeros((12, 12), np.uint8)
            mask[3:7, 2 : 4 + i] = 255
            write_picture(root / f"frames/{scan}_{i}.png", picture)
            write_picture(root / f"masks/{scan}_{i}.png", mask)
    return root


def test_a_scan_is_for_training_or_for_the_test(source: Path, convert: Converter) -> None:
    dataset = convert("covid", source)
    test_scans = {find_scan(case) for case in cases(dataset / "imagesTs")}
    trained = {find_scan(case) for case in cases(dataset / "imagesTr")}
    assert patients(dataset, "Ts") == test_scans
    assert test_scans | trained == set(SCANS) and not test_scans & trained
    assert 0.1 < counts(dataset)["imagesTs"] / 20 <= 0.3


def test_pictures_are_grey_and_masks_binary(source: Path, convert: Converter) -> None:
    dataset = convert("covid", source)
    image = read(next(dataset.glob("images*/bjorke_2_0000.png")))
    mask = read(next(dataset.glob("labels*/bjorke_2.png")))
    assert image.shape == mask.shape == (12, 12)
    expected = np.zeros((12, 12), np.uint8)
    expected[3:7, 2:6] = 1
    np.testing.assert_array_equal(mask, expected)


def test_about_the_given_share_of_the_slices_is_for_the_test() -> None:
    names = [f"scan{s}_{i}" for s in range(50) for i in range(1 + s % 7)]
    for seed in range(5):
        test_scans = draw_test_scans(names, 20, seed)
        share = sum(find_scan(name) in test_scans for name in names) / len(names)
        assert 0.2 <= share <= 0.3


def test_slices_of_one_scan_cannot_be_split() -> None:
    with pytest.raises(UserError, match="1 scans"):
        draw_test_scans([f"scan_{i}" for i in range(9)], 20, 0)


def test_missing_masks_and_folders_are_reported(source: Path, convert: Converter) -> None:
    (source / "masks/bjorke_2.png").unlink()
    assert "masks/bjorke_2.png: the file is" in convert.error("covid", source)
    (source / "empty").mkdir()
    assert "no pictures" in convert.error("covid", source / "empty")
