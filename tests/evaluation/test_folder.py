"""Files are matched by name, checked in one pass, and measured on their own grid."""

import csv
import gzip
import re

import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO

from semi_nnunet.evaluation.metrics import Measure, mask_metrics
from tests.evaluation.folders import evaluate, folders, write


def test_two_processes_give_the_same_table_as_one(tmp_path):
    predictions, references = folders(tmp_path)
    for number in ("1", "2"):
        assert evaluate(predictions, references, "-np", number, "-o", str(tmp_path / number)) == 0
    first, second = ((tmp_path / number / "metrics.csv").read_text() for number in ("1", "2"))
    assert first == second


def test_colour_images_masks_are_flat(tmp_path):
    predictions, references = folders(tmp_path, ending=".png")
    assert evaluate(predictions, references) == 0
    arrays = [
        NaturalImage2DIO().read_seg(str(folder / "a.png"))[0][0, 0] == 1
        for folder in (predictions, references)
    ]
    expected = mask_metrics(*arrays, (1, 1), Measure({}, "pixels", axes=2))
    with open(predictions / "metrics.csv", encoding="utf-8") as file:
        row = next(csv.DictReader(file))
    for column in ("hd95_edge_pixels", "hd95_surfel_pixels", "area_difference_pixels"):
        assert float(row[column]) == pytest.approx(expected[column], rel=1e-5)


@pytest.mark.parametrize("flat", ["a", "b"])
def test_a_single_slice_among_volumes_is_measured_as_a_volume(tmp_path, flat):
    predictions, references = folders(tmp_path)
    for case in "abc":
        shape = (1 if case == flat else 8, 16, 16)
        write(references / f"{case}.nii.gz", np.ones(shape))
        write(predictions / f"{case}.nii.gz", np.zeros(shape))
    assert evaluate(predictions, references) == 0
    with open(predictions / "metrics.csv", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["class"] == "liver"]
    slice_ml = 16 * 16 * 0.8 * 1.0 * 3.0 / 1000
    missed = {row["case"]: -float(row["volume_difference_ml"]) for row in rows}
    expected = {case: pytest.approx((1 if case == flat else 8) * slice_ml) for case in "abc"}
    assert missed == expected


# ---- broken files ----


def test_all_broken_files_are_reported_in_one_pass(tmp_path, capsys):
    predictions, references = folders(tmp_path)
    write(predictions / "a.nii.gz", np.zeros((8, 16, 16)), (1.0, 1.0, 1.0))
    write(references / "b.nii.gz", np.full((8, 16, 16), 7))
    whole = (predictions / "c.nii.gz").read_bytes()
    (predictions / "c.nii.gz").write_bytes(whole[: len(whole) // 2])
    assert evaluate(predictions, references) == 2
    message = capsys.readouterr().err
    assert "a.nii.gz: must lie" in message and "spacing" in message
    assert "b.nii.gz: label values" in message and "got 7" in message
    assert "c.nii.gz" in message and message.count("Fix:") == 3
    assert not (predictions / "metrics.csv").exists()


SPOILT = {
    ".nii.gz": lambda content: content[:70] + (7777).to_bytes(2, "little") + content[72:],
    ".mha": lambda content: re.sub(rb"ElementSpacing = [^\n]*", b"ElementSpacing = 1 abc", content),
    ".tif": lambda _: b"II\x63\x00" + bytes(20),
}


@pytest.mark.parametrize("ending", SPOILT)
def test_a_broken_header_is_reported(ending, tmp_path, capsys):
    predictions, references = folders(tmp_path, ending=ending)
    for folder in (predictions, references):
        path, compressed = folder / f"b{ending}", ending.endswith(".gz")
        content = gzip.decompress(path.read_bytes()) if compressed else path.read_bytes()
        content = SPOILT[ending](content)
        path.write_bytes(gzip.compress(content) if compressed else content)
    assert evaluate(predictions, references) == 2
    message = capsys.readouterr().err
    assert message.count(f"b{ending}: is damaged") == 2 and "Traceback" not in message


def test_files_without_a_counterpart_are_reported(tmp_path, capsys):
    predictions, references = folders(tmp_path)
    (references / "a.nii.gz").unlink()
    (predictions / "b.nii.gz").unlink()
    assert evaluate(predictions, references) == 2
    message = capsys.readouterr().err
    assert "a.nii.gz: is predicted, but has no reference" in message
    assert "b.nii.gz: has no prediction" in message and "--incomplete" in message
    (predictions / "a.nii.gz").unlink()
    assert evaluate(predictions, references, "--incomplete") == 0
    (tmp_path / "empty").mkdir()
    assert evaluate(tmp_path / "empty", references, "--dataset-json",
                    str(tmp_path / "data" / "dataset.json")) == 2  # fmt: skip
    assert "holds no file *.nii.gz" in capsys.readouterr().err


@pytest.mark.parametrize("ending", [".nii.gz", ".mha"])
def test_voxels_that_are_not_finite_are_not_scored_as_background(ending, tmp_path, capsys):
    predictions, references = folders(tmp_path, ending=ending)
    for path, values in (
        (references / f"a{ending}", [np.nan]),
        (predictions / f"b{ending}", [np.inf, np.nan]),
    ):
        image = sitk.ReadImage(str(path))
        array = sitk.GetArrayFromImage(image).astype(np.float32)
        array.flat[: len(values)] = values
        broken = sitk.GetImageFromArray(array)
        broken.CopyInformation(image)
        sitk.WriteImage(broken, str(path))
    assert evaluate(predictions, references) == 2
    message = capsys.readouterr().err
    assert f"{references / 'a'}{ending}: " in message and "1 NaN and 0 Inf" in message
    assert f"{predictions / 'b'}{ending}: " in message and "1 NaN and 1 Inf" in message
    assert message.count("Fix:") == 2 and not (predictions / "metrics.csv").exists()


def test_hidden_files_of_macos_are_not_cases(tmp_path):
    predictions, references = folders(tmp_path)
    (predictions / "._a.nii.gz").write_bytes(b"Mac OS X")
    (references / "._b.nii.gz").write_bytes(b"Mac OS X")
    assert evaluate(predictions, references) == 0
    with open(predictions / "metrics.csv", encoding="utf-8") as file:
        assert {row["case"] for row in csv.DictReader(file)} == set("abc")
