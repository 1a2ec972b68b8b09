"""The phantom data set: reproducible, valid for nnU-Net, and silent about what is unlabelled."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from semi_nnunet.datasets.phantom import (
    LABEL_KINDS,
    SPACING_ZYX_MM,
    make_phantom,
    write_phantom_dataset,
)
from semi_nnunet.util.errors import UserError

TINY = (12, 32, 32)


def write_tiny(folder: Path, **arguments) -> Path:
    defaults = {"labelled": 3, "unlabelled": 2, "test": 2, "shape": TINY}
    write_phantom_dataset(folder, **(defaults | arguments))
    return folder


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def read(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def test_a_case_is_a_function_of_its_arguments():
    image, label = make_phantom(3, TINY, channels=2)
    again, label_again = make_phantom(3, TINY, channels=2)
    other, _ = make_phantom(4, TINY, channels=2)
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(label, label_again)
    assert not np.array_equal(image, other)


@pytest.mark.parametrize("shape", [(24, 64, 64), TINY, (1, 32, 40)])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_case_has_the_documented_shapes_types_and_values(shape, channels):
    image, label = make_phantom(0, shape, channels)
    assert image.shape == (channels, *shape) and image.dtype == np.float32
    assert label.shape == shape and label.dtype == np.uint8
    assert np.isfinite(image).all()
    assert image.min() >= 0 and 0.3 < image.max() < 5
    assert set(np.unique(label)) <= {0, 1, 2, 3}


@pytest.mark.parametrize("difficulty", [0.0, 2.5])
def test_a_case_is_finite_at_any_difficulty(difficulty):
    image, label = make_phantom(1, TINY, difficulty=difficulty)
    assert np.isfinite(image).all() and label.any()


def test_channels_show_one_body_with_different_contrast():
    image, label = make_phantom(0, TINY, channels=2)
    single, label_of_single = make_phantom(0, TINY, channels=1)
    np.testing.assert_array_equal(label, label_of_single)
    np.testing.assert_array_equal(image[0], single[0])
    assert not np.allclose(image[0], image[1])


def test_nearly_every_case_shows_every_organ_in_the_middle_third():
    labels = [make_phantom(seed, TINY)[1] for seed in range(20)]
    for organ in (1, 2, 3):
        in_the_middle = [(label[4:8] == organ).any(axis=(1, 2)).all() for label in labels]
        assert np.mean(in_the_middle) >= 0.9


def test_the_paired_organ_is_on_both_sides():
    label = make_phantom(0)[1]
    x = np.nonzero(label == 2)[2]
    assert (x < 28).any() and (x > 36).any()


def test_case_names_are_disjoint_and_unlabelled_cases_have_no_label(tmp_path):
    folder = write_tiny(tmp_path / "Dataset999_Phantom")
    assert names(folder / "imagesTr") == {f"phantom_{i:04d}_0000.nii.gz" for i in (0, 1, 2)}
    assert names(folder / "imagesUn") == {f"phantom_{i:04d}_0000.nii.gz" for i in (3, 4)}
    assert names(folder / "imagesTs") == {f"phantom_{i:04d}_0000.nii.gz" for i in (5, 6)}
    for i in (3, 4):
        files = [path for path in folder.rglob(f"*phantom_{i:04d}*") if path.is_file()]
        assert [path.parent.name for path in files] == ["imagesUn"]
    assert names(folder / "labelsTr") == {f"phantom_{i:04d}.nii.gz" for i in (0, 1, 2)}
    assert names(folder / "labelsTs") == {f"phantom_{i:04d}.nii.gz" for i in (5, 6)}


def test_every_case_of_a_data_set_differs(tmp_path):
    folder = write_tiny(tmp_path)
    images = [read(path) for path in sorted(folder.glob("images*/*.nii.gz"))]
    assert len({image.tobytes() for image in images}) == 7


def test_labelling_more_cases_keeps_the_test_cases(tmp_path):
    few = write_tiny(tmp_path / "few", labelled=1, unlabelled=3)
    many = write_tiny(tmp_path / "many", labelled=4, unlabelled=0)
    for name in names(few / "imagesTs"):
        np.testing.assert_array_equal(read(few / "imagesTs" / name), read(many / "imagesTs" / name))


@pytest.mark.parametrize("label_kind", LABEL_KINDS)
def test_dataset_json_and_labels_agree_with_nnunet(tmp_path, label_kind):
    folder = write_tiny(tmp_path, label_kind=label_kind, labelled=4)
    content = json.loads((folder / "dataset.json").read_text())
    manager = LabelManager(content["labels"], content.get("regions_class_order"))
    assert manager.has_regions == ("regions" in label_kind)
    assert manager.has_ignore_label == ("ignore" in label_kind)
    assert manager.num_segmentation_heads == (3 if "regions" in label_kind else 4)
    assert content["numTraining"] == 4

    train = [read(path) for path in sorted((folder / "labelsTr").iterdir())]
    allowed = {0, 1, 2, 3} | ({4} if "ignore" in label_kind else set())
    for label in train:
        assert set(np.unique(label)) <= allowed
        assert np.isin(label, (1, 2, 3)).any(), "an annotated part must show an organ"
        assert (label == 4).any() == ("ignore" in label_kind)
    for path in (folder / "labelsTs").iterdir():
        assert read(path).max() == 3, "test labels are complete"


def test_partial_annotation_changes_only_ignored_voxels(tmp_path):
    whole = write_tiny(tmp_path / "whole", label_kind="labels")
    part = write_tiny(tmp_path / "part", label_kind="ignore")
    for name in names(whole / "labelsTr"):
        full, partial = read(whole / "labelsTr" / name), read(part / "labelsTr" / name)
        np.testing.assert_array_equal(partial[partial != 4], full[partial != 4])


def test_nifti_channels_are_read_by_nnunet_with_their_spacing(tmp_path):
    folder = write_tiny(tmp_path, channels=3)
    files = sorted(str(path) for path in (folder / "imagesUn").glob("phantom_0003_*"))
    image, properties = SimpleITKIO().read_images(files)
    assert image.shape == (3, *TINY)
    assert tuple(properties["spacing"]) == SPACING_ZYX_MM
    content = json.loads((folder / "dataset.json").read_text())
    assert set(content["channel_names"]) == {"0", "1", "2"}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("label_kind", ["labels", "regions_ignore"])
def test_png_is_read_by_nnunet_as_a_slice(tmp_path, channels, label_kind):
    folder = write_tiny(tmp_path, channels=channels, file_ending=".png", label_kind=label_kind)
    assert names(folder / "imagesTr") == {f"phantom_{i:04d}_0000.png" for i in range(3)}
    image, _ = NaturalImage2DIO().read_images([str(folder / "imagesTr" / "phantom_0000_0000.png")])
    label, _ = NaturalImage2DIO().read_seg(str(folder / "labelsTr" / "phantom_0000.png"))
    assert image.shape == (channels, 1, *TINY[1:]) and label.shape == (1, 1, *TINY[1:])
    assert image.std() > 10 and set(np.unique(label)) <= {0, 1, 2, 3, 4}
    content = json.loads((folder / "dataset.json").read_text())
    assert list(content["channel_names"].values()) == (
        ["R", "G", "B"] if channels == 3 else ["contrast_0"]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"label_kind": "boxes"}, "label_kind"),
        ({"channels": 0}, "at least 1, got 0"),
        ({"channels": 2, "file_ending": ".png"}, r"1 \(grey\) or 3 \(RGB\)"),
    ],
)
def test_a_wrong_argument_is_reported_before_anything_is_written(tmp_path, arguments, message):
    with pytest.raises(UserError, match=message):
        write_tiny(tmp_path / "new", **arguments)
    assert not (tmp_path / "new").exists()


def test_a_folder_with_cases_is_reported_because_old_labels_would_leak(tmp_path):
    write_tiny(tmp_path)
    with pytest.raises(UserError, match="already contains"):
        write_tiny(tmp_path, labelled=1)
