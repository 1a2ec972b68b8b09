"""MSD Pancreas: one class, a test set drawn by a seed, slices of one size on request."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from tests.datasets.converting import Converter, cases, counts, read, write_volume


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root, entries = tmp_path / "Task07_Pancreas", []
    for number in (1, 4, 5, 6, 8, 10):
        name = f"pancreas_{number:03d}.nii.gz"
        write_volume(root / "imagesTr" / name, number, shape=(3, 12, 12))
        write_volume(root / "labelsTr" / name, labels=(0, 1, 2, 0), shape=(3, 12, 12))
        (root / "imagesTr" / f"._{name}").write_bytes(b"as macOS leaves them")
        entries.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    write_volume(root / "imagesTs/pancreas_002.nii.gz", 2)
    (root / "dataset.json").write_text(json.dumps({"training": entries}))
    return root


def test_pancreas_and_tumour_are_one_class(source: Path, convert: Converter) -> None:
    dataset = convert("pancreas", source, "--test", 2)
    assert counts(dataset) == {"imagesTr": 4, "labelsTr": 4, "imagesTs": 2, "labelsTs": 2}
    name = sorted(cases(dataset / "imagesTr"))[0]
    label = read(source / f"labelsTr/{name}.nii.gz")
    np.testing.assert_array_equal(read(dataset / f"labelsTr/{name}.nii.gz"), label > 0)
    image = read(dataset / f"imagesTr/{name}_0000.nii.gz")
    np.testing.assert_array_equal(image, read(source / f"imagesTr/{name}.nii.gz"))


def test_the_test_cases_depend_on_the_seed(source: Path, convert: Converter) -> None:
    first = convert("pancreas", source, "--test", 3)
    second = convert("pancreas", source, "--test", 3, "--seed", 3, number=710)
    assert cases(first / "imagesTs") != cases(second / "imagesTs")


def test_resized_slices_have_the_same_field_of_view(source: Path, convert: Converter) -> None:
    ramp = np.tile(np.arange(12, dtype=np.float32), (3, 12, 1))
    path = source / "imagesTr/pancreas_001.nii.gz"
    original_image = sitk.ReadImage(str(path))
    image = sitk.GetImageFromArray(ramp)
    image.CopyInformation(original_image)
    sitk.WriteImage(image, str(path))
    dataset = convert("pancreas", source, "--test", 1, "--size", 24)
    path = next(dataset.glob("images*/pancreas_001_0000.nii.gz"))
    resized = sitk.ReadImage(str(path))
    assert resized.GetSize() == (24, 24, 3)
    for corner in ((-0.5, -0.5, -0.5), (1.0, 1.0, 1.0)):
        old, new = (
            [c if c < 0 else size - 0.5 for c, size in zip(corner, image.GetSize(), strict=True)]
            for image in (original_image, resized)
        )
        np.testing.assert_allclose(
            original_image.TransformContinuousIndexToPhysicalPoint(old),
            resized.TransformContinuousIndexToPhysicalPoint(new),
            atol=1e-5,
        )
    row = sitk.GetArrayFromImage(resized)[1, 7]
    np.testing.assert_allclose(row, np.clip(np.arange(24) / 2 - 0.25, 0, 11), atol=1e-4)
    label = read(next(dataset.glob("labels*/pancreas_001.nii.gz")))
    original = read(source / "labelsTr/pancreas_001.nii.gz") > 0
    np.testing.assert_array_equal(label, original.repeat(2, axis=1).repeat(2, axis=2))


def test_files_must_agree_with_dataset_json(source: Path, convert: Converter) -> None:
    (source / "labelsTr/pancreas_004.nii.gz").unlink()
    write_volume(source / "imagesTr/pancreas_300.nii.gz")
    write_volume(source / "labelsTr/prediction.nii.gz")
    message = convert.error("pancreas", source)
    assert "labelsTr/pancreas_004.nii.gz: the file is" in message
    assert "pancreas_300: dataset.json does" in message
    assert "labelsTr/prediction.nii.gz: does not belong" in message
    (source / "dataset.json").write_text("{}")
    assert "the training cases" in convert.error("pancreas", source)
    (source / "dataset.json").write_text("[" * 100_000)
    assert "the training cases" in convert.error("pancreas", source)


def test_more_test_cases_than_there_are_cases_are_reported(
    source: Path, convert: Converter
) -> None:
    assert "--test must be between 1 and 5, got 56" in convert.error("pancreas", source)


def test_an_interrupted_conversion_is_run_again(
    source: Path, convert: Converter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    from semi_nnunet.cli.main import main

    with monkeypatch.context() as patch:
        patch.setattr("semi_nnunet.datasets.conversion.write_json", interrupted)
        command = ["convert", "pancreas", str(source), "--new-id", "700", "--test", "2", "-np", "1"]
        assert main(command) == 130
    assert "the same command" in convert.capsys.readouterr().err
    assert not list(convert.raw.glob("Dataset*"))
    convert("pancreas", source, "--test", 2)


def test_another_conversion_does_not_replace_the_first(source: Path, convert: Converter) -> None:
    dataset = convert("pancreas", source, "--test", 2)
    from semi_nnunet.cli.main import main

    command = ["convert", "pancreas", str(source), "--new-id", "700", "--test", "3"]
    assert main(command) == 2
    assert "was not made by this command" in convert.capsys.readouterr().err
    assert main([*command, "--new-name", "Other"]) == 2
    assert f"is taken by {dataset.name}" in convert.capsys.readouterr().err
    assert counts(dataset)["imagesTs"] == 2
