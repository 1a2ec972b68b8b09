"""Pictures of any kind become grey or colour, masks 0 and 1."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semi_nnunet.datasets.pictures import read_grey, read_masks, read_rgb, resize_picture
from semi_nnunet.raw.readers import BrokenFileError
from tests.datasets.converting import write_picture

GREY = np.arange(48, dtype=np.uint8).reshape(8, 6) * 5


@pytest.mark.parametrize("kind", ["L", "RGB", "RGBA", "LA"])
def test_grey_is_grey_however_it_is_stored(tmp_path: Path, kind: str) -> None:
    Image.fromarray(GREY).convert(kind).save(tmp_path / "picture.png")
    np.testing.assert_array_equal(read_grey(tmp_path / "picture.png"), GREY)
    assert read_rgb(tmp_path / "picture.png").shape == (8, 6, 3)


def test_sixteen_bits_are_reported(tmp_path: Path) -> None:
    Image.fromarray(GREY.astype(np.uint16) * 100).save(tmp_path / "picture.png")
    with pytest.raises(BrokenFileError, match="8 bits, got uint16"):
        read_rgb(tmp_path / "picture.png")


def test_the_inks_of_a_printer_are_no_colours_of_a_screen(tmp_path: Path) -> None:
    Image.new("CMYK", (6, 8), (255, 0, 0, 128)).save(tmp_path / "picture.jpg")
    with pytest.raises(BrokenFileError, match="CMYK"):
        read_rgb(tmp_path / "picture.jpg")


@pytest.mark.parametrize("kind", ["1", "L", "LA", "RGB", "RGBA"])
def test_masks_of_any_kind_are_united(tmp_path: Path, kind: str) -> None:
    first, second = np.zeros((2, 8, 6), np.uint8)
    first[0, :3], second[2, 2:] = 255, 255
    for name, mask in (("a.png", first), ("b.png", second)):
        Image.fromarray(mask).convert(kind).save(tmp_path / name)
    union = read_masks([tmp_path / "a.png", tmp_path / "b.png"])
    np.testing.assert_array_equal(union, ((first > 0) | (second > 0)).astype(np.uint8))


def test_masks_of_different_size_are_reported(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", np.zeros((8, 6), np.uint8))
    write_picture(tmp_path / "b.png", np.zeros((6, 8), np.uint8))
    with pytest.raises(BrokenFileError, match="one size"):
        read_masks([tmp_path / "a.png", tmp_path / "b.png"])


@pytest.mark.parametrize("value", [1, 2, 127])
def test_masks_whose_values_are_too_small_are_reported(tmp_path: Path, value: int) -> None:
    write_picture(tmp_path / "a.png", np.full((8, 6), value, np.uint8))
    with pytest.raises(BrokenFileError, match=f"0 and 255, got values up to {value}"):
        read_masks([tmp_path / "a.png"])
    write_picture(tmp_path / "a.jpg", np.full((8, 6), min(value, 2), np.uint8))  # noise of JPEG
    assert not read_masks([tmp_path / "a.jpg"]).any()


@pytest.mark.parametrize("size", [3, 9, 16])
def test_resizing_a_mask_makes_no_new_values(size: int) -> None:
    mask = np.random.default_rng(0).choice([0, 1, 3], (12, 10)).astype(np.uint8)
    small = resize_picture(mask, size, is_label=True)
    assert small.shape == (size, size) and small.dtype == np.uint8
    assert set(np.unique(small)) <= {0, 1, 3}
    colours = resize_picture(np.stack([mask] * 3, axis=-1), size, is_label=False)
    assert colours.shape == (size, size, 3) and colours.max() <= 3


def test_without_a_size_pictures_are_unchanged() -> None:
    assert resize_picture(GREY, None, is_label=False) is GREY
