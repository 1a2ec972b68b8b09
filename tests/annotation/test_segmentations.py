"""Segmentations of 3D Slicer: written for reviewers, edited, and accepted."""

from __future__ import annotations

import os
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from semi_nnunet.annotation.segmentations import (
    read_segmentation,
    write_segmentation,
    write_segmentations,
)
from semi_nnunet.cli.main import main
from semi_nnunet.raw.description import RawDataset
from semi_nnunet.raw.layout import WRITTEN_FILE
from semi_nnunet.raw.readers import BrokenFileError
from tests.annotation.conftest import Loop
from tests.conftest import no_processes

NAMED = {1: ("Läsion, groß", (240, 228, 66)), 4: ("core", (86, 180, 233))}
VALUES = {name: value for value, (name, _) in NAMED.items()}
TURN = np.linalg.qr([[0.9, 0.3, 0.1], [-0.2, 0.95, 0.2], [0.05, -0.2, 1.0]])[0]


@pytest.fixture
def label(tmp_path: Path) -> Path:
    """A label of an oblique image that lacks the second class."""
    voxels = np.zeros((6, 8, 10), np.uint8)
    voxels[2:4, 3:6, 4:7] = 1
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing((0.7, 0.9, 2.5))
    image.SetOrigin((-31.5, 12.25, 7.125))
    image.SetDirection(TURN.ravel().tolist())
    path = tmp_path / "case_1.nii.gz"
    sitk.WriteImage(image, str(path))
    return path


def test_slicerio_reads_names_values_colours_and_the_grid(label, tmp_path):
    slicerio = pytest.importorskip("slicerio", reason="needs slicerio, of the extra dev")
    out = tmp_path / "case_1.seg.nrrd"
    write_segmentation(label, {1: ("lesion", (240, 228, 66)), 4: ("core", (86, 180, 233))}, out)
    read = slicerio.read_segmentation(str(out))
    facts = [(one["name"], one["labelValue"]) for one in read["segments"]]
    assert facts == [("lesion", 1), ("core", 4)]
    colours = [np.round(255 * np.array(one["color"])).tolist() for one in read["segments"]]
    assert colours == [[240, 228, 66], [86, 180, 233]]
    original = nibabel.load(label)
    assert np.array_equal(read["voxels"], np.asarray(original.dataobj))
    to_lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ original.affine
    assert np.allclose(read["ijkToLPS"], to_lps, atol=1e-5)


def test_an_unchanged_segmentation_is_the_label(label, tmp_path):
    out = tmp_path / "case_1.seg.nrrd"
    write_segmentation(label, NAMED, out)
    again, original = read_segmentation(out, VALUES, label), sitk.ReadImage(str(label))
    assert np.array_equal(sitk.GetArrayFromImage(again), sitk.GetArrayFromImage(original))
    assert again.GetDirection() == original.GetDirection()


def edit(path: Path, change) -> None:
    """Change a segmentation as Slicer would: other voxels, and its fields, are written."""
    image = sitk.ReadImage(str(path))
    changed = change(image)
    for key in image.GetMetaDataKeys():
        if not changed.HasMetaDataKey(key):
            changed.SetMetaData(key, image.GetMetaData(key))
    sitk.WriteImage(changed, str(path), useCompression=True)


def test_a_cropped_and_renumbered_segmentation_is_placed_by_the_names(label, tmp_path):
    out = tmp_path / "case_1.seg.nrrd"
    write_segmentation(label, NAMED, out)

    def crop(image: sitk.Image) -> sitk.Image:
        part = image[3:8, 2:7, 1:5]
        part[1, 1, 1] = 3
        part.SetMetaData("Segment1_LabelValue", "3")  # of core, 4 in labels
        return part

    edit(out, crop)
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(label)))
    expected[2, 3, 4] = 4
    assert np.array_equal(sitk.GetArrayFromImage(read_segmentation(out, VALUES, label)), expected)


@pytest.mark.parametrize(
    ("change", "key_word"),
    [
        (lambda image: sitk.Compose(image, image), "overlap"),
        (lambda image: image[::2, :, :], "spacing"),
        (lambda image: sitk.ConstantPad(image, [2, 0, 0], [0, 0, 0], 1), "outside"),
        (lambda image: image + 5, "no segment"),
    ],
)
def test_a_segmentation_that_is_no_label_of_the_image_is_refused(label, tmp_path, change, key_word):
    out = tmp_path / "case_1.seg.nrrd"
    write_segmentation(label, NAMED, out)
    edit(out, change)
    with pytest.raises(BrokenFileError, match=key_word):
        read_segmentation(out, VALUES, label)


def test_a_segment_of_no_class_and_a_damaged_file_are_refused(label, tmp_path):
    out = tmp_path / "case_1.seg.nrrd"
    write_segmentation(label, NAMED, out)
    with pytest.raises(BrokenFileError, match="core"):
        read_segmentation(out, {"Läsion, groß": 1}, label)
    out.write_bytes(out.read_bytes()[:500])
    with pytest.raises(BrokenFileError, match="read"):
        read_segmentation(out, VALUES, label)


def test_a_corrected_segmentation_stays(label, tmp_path):
    description = {"labels": {"background": 0, "lesion": 1}, "file_ending": ".nii.gz"}
    folder = tmp_path / "segmentations"
    write_segmentations([label], description, folder)
    out = folder / "case_1.seg.nrrd"
    out.write_text("corrected")
    write_segmentations([label], description, folder)
    assert out.read_text() == "corrected"
    later = time.time_ns() + 10**9  # clocks of files tick slowly
    os.utime(label, ns=(later, later))
    write_segmentations([label], description, folder)
    assert out.read_text() == "corrected"
    (folder / WRITTEN_FILE).unlink()  # of an earlier version: only times are known
    write_segmentations([label], description, folder)
    assert out.stat().st_size > 100
    content = out.read_bytes()
    image = sitk.ReadImage(str(label))
    image[0, 0, 0] = 1 - min(1, image[0, 0, 0])
    sitk.WriteImage(image, str(label))
    write_segmentations([label], description, folder)  # an unchanged one follows its label
    assert out.read_bytes() != content


def test_2d_files_have_no_segmentation(tmp_path):
    description = {"labels": {"background": 0, "lesion": 1}, "file_ending": ".nii.gz"}
    label = tmp_path / "case_1.nii.gz"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((8, 8), np.uint8)), str(label))
    write_segmentations([label], description, tmp_path / "segmentations")
    assert not (tmp_path / "segmentations").exists()


def test_reviewed_segmentations_are_accepted(loop: Loop, capsys):
    names, folder = loop.review(4, 5), loop.root / "segmentations"
    labels = [loop.reviewed / f"{name}.nii.gz" for name in names]
    write_segmentations(labels, RawDataset.of(loop.raw).description, folder)
    words = ["accept", "-d", "977", "-i", str(folder)]
    with no_processes():
        assert main(words) == 2  # they are as they were written
    assert capsys.readouterr().err.count("no voxel was changed") == len(labels)
    (folder / WRITTEN_FILE).unlink()  # as if a person had saved them
    with no_processes():
        assert main(words) == 0
    for label in labels:
        accepted = sitk.ReadImage(str(loop.raw / "labelsTr" / label.name))
        original = sitk.ReadImage(str(label))
        assert np.array_equal(sitk.GetArrayFromImage(accepted), sitk.GetArrayFromImage(original))
    with no_processes():
        assert main(words) == 0
    assert "nothing to do" in capsys.readouterr().out
    again = folder / f"{names[0]}.seg.nrrd"
    segmentation = sitk.ReadImage(str(again))
    segmentation[0, 0, 0] = 1 - segmentation[0, 0, 0]
    sitk.WriteImage(segmentation, str(again))
    with no_processes():
        assert main(words) == 2  # it is labelled, and this one differs
    assert str(again) in capsys.readouterr().err
    (folder / "stranger.seg.nrrd").write_bytes((folder / f"{names[0]}.seg.nrrd").read_bytes())
    (folder / labels[0].name).write_bytes(labels[0].read_bytes())
    with no_processes():
        assert main(words) == 2
    assert not [path for path in folder.iterdir() if path.is_dir()]  # the reviewer's folder
    text = capsys.readouterr().err
    assert "stranger" in text and f"{folder / labels[0].name}" in text
