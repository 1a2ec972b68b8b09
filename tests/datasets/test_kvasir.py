"""Kvasir-SEG: colour pictures, JPEG masks thresholded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.datasets.converting import Converter, cases, counts, read, write_picture

SHAPE = (24, 32)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root, rng = tmp_path / "Kvasir-SEG", np.random.default_rng(0)
    for i in range(10):
        mask = np.zeros((*SHAPE, 3), np.uint8)
        mask[4:20, 8 : 14 + i] = 255
        picture = np.clip(rng.normal(100, 30, (*SHAPE, 3)) + mask / 4, 0, 255).astype(np.uint8)
        write_picture(root / f"images/cju{i:02d}.jpg", picture, quality=90)
        write_picture(root / f"masks/cju{i:02d}.jpg", mask, quality=60)
    (root / "kavsir_bboxes.json").write_text("{}")
    return root


def test_four_fifths_are_for_training(source: Path, convert: Converter) -> None:
    dataset = convert("kvasir", source, "--incomplete")
    assert counts(dataset) == {"imagesTr": 8, "labelsTr": 8, "imagesTs": 2, "labelsTs": 2}
    assert cases(dataset / "imagesTr") | cases(dataset / "imagesTs") == {
        f"cju{i:02d}" for i in range(10)
    }
    assert not (dataset / "labelled_subsets.json").exists()


def test_masks_are_thresholded(source: Path, convert: Converter) -> None:
    assert len(np.unique(read_jpg(source / "masks/cju03.jpg"))) > 2
    dataset = convert("kvasir", source, "--incomplete")
    mask = read(next(dataset.glob("labels*/cju03.png")))
    expected = np.zeros(SHAPE, np.uint8)
    expected[4:20, 8:17] = 1
    np.testing.assert_array_equal(mask, expected)
    picture = read(next(dataset.glob("images*/cju03_0000.png")))
    np.testing.assert_array_equal(picture, read_jpg(source / "images/cju03.jpg"))


def test_a_corrected_download_is_named(source: Path, convert: Converter) -> None:
    convert("kvasir", source, "--incomplete")
    mask = np.zeros((*SHAPE, 3), np.uint8)
    write_picture(source / "masks/cju03.jpg", mask, quality=60)
    message = convert.error("kvasir", source, "--incomplete", "--new-id", 700)
    assert "has changed" in message and "masks/cju03.jpg" in message


def test_pictures_are_resized_on_request(source: Path, convert: Converter) -> None:
    dataset = convert("kvasir", source, "--incomplete", "--size", 16)
    assert read(next(dataset.glob("images*/cju03_0000.png"))).shape == (16, 16, 3)
    mask = read(next(dataset.glob("labels*/cju03.png")))
    assert mask.shape == (16, 16) and set(np.unique(mask)) == {0, 1}


def test_pairs_must_be_complete(source: Path, convert: Converter) -> None:
    (source / "masks/cju03.jpg").unlink()
    (source / "images/cju04.jpg").unlink()
    write_picture(source / "overview.png", np.zeros((4, 4), np.uint8))
    message = convert.error("kvasir", source)
    assert "masks/cju03.jpg: the file is" in message
    assert "images/cju04.jpg: the file is" in message
    assert "overview.png: does not belong" in message
    assert "there must be 1000, got 9" in message


def test_a_mask_of_another_size_and_a_broken_picture_are_reported(
    source: Path, convert: Converter
) -> None:
    write_picture(source / "masks/cju03.jpg", np.zeros((8, 8), np.uint8))
    (source / "images/cju05.jpg").write_bytes(b"\xff\xd8\xff no picture")
    message = convert.error("kvasir", source, "--incomplete")
    assert "of the image, (24, 32), got (8, 8)" in message
    assert "images/cju05.jpg: cannot be converted" in message


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--new-id", -5], "--new-id: must be a number from 1 to 999, got -5"),
        (["--new-id", 1000], "--new-id: must be a number from 1 to 999, got 1000"),
        (["--new-name", "a/b"], "--new-name: must be a name without"),
        (["--new-name", ""], "--new-name: must be a name without"),
        (["--test-percent", 1], "between 1 and 9, got 0. Fix: raise --test-percent"),
    ],
)
def test_what_no_data_set_can_have_is_refused(
    source: Path, convert: Converter, words: list[object], says: str
) -> None:
    assert says in convert.error("kvasir", source, "--incomplete", *words)


def test_a_negative_seed_is_refused(source: Path, convert: Converter) -> None:
    assert "--seed" in convert.error("kvasir", source, "--incomplete", "--seed", -1)


def read_jpg(path: Path) -> np.ndarray:
    from skimage import io

    return np.asarray(io.imread(path))
