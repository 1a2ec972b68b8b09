"""Changed volumes keep their position in space, and labels keep their values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from semi_nnunet.datasets.volumes import (
    copy_or_link,
    extract_frame,
    map_label_values,
    resize_slices,
    save_volume,
)
from semi_nnunet.raw.readers import BrokenFileError


def make_image(array: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(array, isVector=False)
    image.SetSpacing((0.5, 2.0, 3.0, 1.0)[: array.ndim])
    image.SetOrigin((4.0, 5.0, 6.0, 0.0)[: array.ndim])
    return image


def test_values_are_replaced_and_the_position_is_kept() -> None:
    label = make_image(np.array([[[0, 205], [420, 0]]], dtype=np.float32))
    new = map_label_values(label, {0: 0, 205: 2, 420: 1})
    assert sitk.GetArrayFromImage(new).tolist() == [[[0, 2], [1, 0]]]
    assert new.GetPixelID() == sitk.sitkUInt8
    assert new.GetSpacing() == label.GetSpacing() and new.GetOrigin() == label.GetOrigin()


@pytest.mark.parametrize("foreign", [7.0, 0.5, -1.0])
def test_an_unknown_value_is_reported(foreign: float) -> None:
    label = make_image(np.array([[[0, foreign]]], dtype=np.float32))
    with pytest.raises(BrokenFileError, match=rf"must be of \[0, 1\], got {foreign:g}"):
        map_label_values(label, {0: 0, 1: 1})


@pytest.mark.parametrize("size", [5, 8, 13])
def test_a_resized_label_has_no_new_values_and_an_image_no_new_range(size: int) -> None:
    array = np.random.default_rng(0).choice([0, 3, 7], (2, 8, 6)).astype(np.uint8)
    label = sitk.GetArrayFromImage(resize_slices(make_image(array), size, is_label=True))
    image = sitk.GetArrayFromImage(resize_slices(make_image(array), size, is_label=False))
    assert label.shape == image.shape == (2, size, size)
    assert set(np.unique(label)) == {0, 3, 7}
    assert image.min() >= 0 and image.max() <= 7


def test_the_same_size_changes_nothing() -> None:
    array = np.random.default_rng(0).integers(0, 99, (3, 6, 6)).astype(np.int16)
    for is_label in (False, True):
        copy = resize_slices(make_image(array), 6, is_label)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(copy), array)
        np.testing.assert_allclose(copy.GetOrigin(), (4.0, 5.0, 6.0))


def test_a_frame_keeps_spacing_and_origin() -> None:
    study = np.arange(2 * 3 * 4 * 5, dtype=np.int16).reshape(2, 3, 4, 5)
    frame = extract_frame(make_image(study), 1)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(frame), study[1])
    assert frame.GetSpacing() == (0.5, 2.0, 3.0) and frame.GetOrigin() == (4.0, 5.0, 6.0)


@pytest.mark.parametrize(
    ("shape", "frame"), [((2, 3, 4, 5), 2), ((2, 3, 4, 5), -1), ((3, 4, 5), 0)]
)
def test_a_frame_that_does_not_exist_is_reported(shape: tuple[int, ...], frame: int) -> None:
    with pytest.raises(BrokenFileError, match=f"must be 4-D with a frame {frame}"):
        extract_frame(make_image(np.zeros(shape, np.int16)), frame)


def test_a_file_is_copied_or_linked(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    copy_or_link(tmp_path / "a", False, tmp_path / "copy")
    copy_or_link(tmp_path / "a", True, tmp_path / "link")
    assert (tmp_path / "copy").read_text() == (tmp_path / "link").read_text() == "x"
    assert (tmp_path / "link").is_symlink() and not (tmp_path / "copy").is_symlink()


def test_an_incompletely_written_volume_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SimpleITK reports no error."""
    write, target = sitk.WriteImage, tmp_path / "a.nii.gz"

    def half(image: sitk.Image, name: str, compressed: bool) -> None:
        write(image, name, compressed)
        target.write_bytes(target.read_bytes()[:-20])

    image = make_image(np.arange(24.0).reshape(2, 3, 4))
    save_volume(image, target)
    monkeypatch.setattr(sitk, "WriteImage", half)
    with pytest.raises(OSError, match="did not take"):
        save_volume(image, target)
