"""``semi_nnunet evaluate`` on folders of files."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from semi_nnunet.cli.main import main
from semi_nnunet.evaluation.metrics import Measure, mask_metrics

LABELS = {"background": 0, "liver": 1, "tumour": 2}
REGIONS = {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}


def write(path: Path, array: np.ndarray, spacing: tuple[float, ...] = (0.8, 1.0, 3.0)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array.astype(np.uint8))
    if len(spacing) == array.ndim:
        image.SetSpacing(spacing)
    sitk.WriteImage(image, str(path))


def folders(root: Path, labels: dict = LABELS, ending: str = ".nii.gz") -> tuple[Path, Path]:
    """Three cases of predictions and references, and a dataset.json beside the references."""
    rng = np.random.default_rng(0)
    description = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 0}
    if "whole" in labels:
        description["regions_class_order"] = [1, 2]
    (root / "data").mkdir(parents=True)
    description["file_ending"] = ending
    (root / "data" / "dataset.json").write_text(json.dumps(description))
    for case in "abc":
        shape = (8, 16, 16) if ending == ".nii.gz" else (16, 16)
        reference = rng.integers(0, 3, shape)
        prediction = np.where(rng.random(shape) < 0.8, reference, rng.integers(0, 3, shape))
        if "ignore" in labels:
            reference[..., :4] = 3
        write(root / "pred" / f"{case}{ending}", prediction)
        write(root / "data" / "labelsTs" / f"{case}{ending}", reference)
    return root / "pred", root / "data" / "labelsTs"


def evaluate(predictions: Path, references: Path, *more: str) -> int:
    return main(["evaluate", "-i", str(predictions), "-r", str(references), "-np", "1", *more])


@pytest.mark.parametrize("labels", [LABELS, REGIONS], ids=["labels", "regions_and_ignore"])
def test_summary_is_nnunets(labels, tmp_path):
    predictions, references = folders(tmp_path, labels)
    assert evaluate(predictions, references, "-o", str(tmp_path / "out")) == 0
    ours = json.loads((tmp_path / "out" / "summary.json").read_text())
    regions = labels is REGIONS
    compute_metrics_on_folder(
        str(references), str(predictions), str(tmp_path / "nnunet.json"), SimpleITKIO(), ".nii.gz",
        [(1, 2), (2,)] if regions else [1, 2], 3 if regions else None, 1,
    )  # fmt: skip
    theirs = json.loads((tmp_path / "nnunet.json").read_text())
    if regions:  # nnU-Net writes a region of one label as (2,)
        ours = json.loads(json.dumps(ours).replace('"2":', '"(2,)":'))
    assert ours["mean"].keys() == theirs["mean"].keys()
    for name, values in theirs["mean"].items():
        assert ours["mean"][name] == pytest.approx(values)
    assert ours["foreground_mean"] == pytest.approx(theirs["foreground_mean"])
    for one, other in zip(ours["metric_per_case"], theirs["metric_per_case"], strict=True):
        assert one == other


def test_tables_hold_every_case_and_class_in_mm_on_the_native_grid(tmp_path, capsys):
    predictions, references = folders(tmp_path)
    assert evaluate(predictions, references, "--tolerances", "1.5") == 0
    with open(predictions / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    assert [(row["case"], row["class"]) for row in rows] == [
        (case, name) for case in "abc" for name in ("liver", "tumour")
    ]
    arrays = [
        sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "b.nii.gz"))) == 2
        for folder in (predictions, references)
    ]
    expected = mask_metrics(*arrays, (3.0, 1.0, 0.8), Measure({"1.5mm": 1.5}))
    row = next(row for row in rows if (row["case"], row["class"]) == ("b", "tumour"))
    assert {column: float(row[column]) for column in expected} == pytest.approx(expected, rel=1e-5)
    content = json.loads((predictions / "metrics.json").read_text())
    means = [float(row["dice"]) for row in rows if row["class"] == "liver"]
    assert content["mean"]["liver"]["dice"] == pytest.approx(np.mean(means), rel=1e-5)
    assert set(content["columns"]) == set(expected)
    assert "liver" in capsys.readouterr().out


def test_two_processes_find_what_one_does(tmp_path):
    predictions, references = folders(tmp_path)
    for number in ("1", "2"):
        assert evaluate(predictions, references, "-np", number, "-o", str(tmp_path / number)) == 0
    one, two = ((tmp_path / number / "metrics.csv").read_text() for number in ("1", "2"))
    assert one == two


def test_colour_images_masks_are_flat(tmp_path):
    predictions, references = folders(tmp_path, ending=".png")
    assert evaluate(predictions, references) == 0
    arrays = [
        NaturalImage2DIO().read_seg(str(folder / "a.png"))[0][0, 0] == 1
        for folder in (predictions, references)
    ]
    expected = mask_metrics(*arrays, (1, 1), Measure({}, "pixels", axes=2))
    with open(predictions / "metrics.csv") as file:
        row = next(csv.DictReader(file))
    for column in ("hd95_edge_pixels", "hd95_surfel_pixels", "area_difference_pixels"):
        assert float(row[column]) == pytest.approx(expected[column], rel=1e-5)


def test_a_tolerance_of_its_own_for_each_class(tmp_path, capsys):
    predictions, references = folders(tmp_path)
    assert evaluate(predictions, references, "--class-tolerances", "liver=0", "tumour=9") == 0
    content = json.loads((predictions / "metrics.json").read_text())
    assert content["mean"]["tumour"]["nsd_surfel_own"] == 1.0
    assert content["mean"]["liver"]["nsd_surfel_own"] < 1.0
    assert content["tolerances"]["liver"]["own"] == 0
    assert evaluate(predictions, references, "--class-tolerances", "lever=1") == 2
    assert "must name all of them, liver, tumour; got lever" in capsys.readouterr().err
    assert evaluate(predictions, references, "--class-tolerances", "liver") == 2
    assert "CLASS=MM" in capsys.readouterr().err
    assert evaluate(predictions, references, "--class-tolerances", "liver=1", "liver=2") == 2
    assert "must give liver one tolerance" in capsys.readouterr().err


def test_regions_can_be_measured_without_their_order(tmp_path):
    """Which region is written over which matters where predictions are made."""
    predictions, references = folders(tmp_path, REGIONS)
    assert evaluate(predictions, references) == 0
    first = (predictions / "metrics.csv").read_text()
    description = tmp_path / "data" / "dataset.json"
    content = json.loads(description.read_text())
    del content["regions_class_order"]
    description.write_text(json.dumps(content))
    assert evaluate(predictions, references) == 0
    assert (predictions / "metrics.csv").read_text() == first


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        ({"background": 0}, "must name a class"),
        ({"background": 0, "ignore": 1}, "must name a class"),
        ({"background": 0, "liver": 1.5}, "must map names to whole numbers"),
        ({"background": 0, "liver": 1, "ignore": [2]}, "'ignore' must be the highest"),
    ],
)
def test_labels_that_cannot_be_measured_are_named_before_the_work(labels, why, tmp_path, capsys):
    predictions, references = folders(tmp_path, labels)
    assert evaluate(predictions, references) == 2
    assert why in capsys.readouterr().err
    assert not (predictions / "metrics.csv").exists()


def test_missed_and_imagined_classes_are_counted(tmp_path):
    predictions, references = folders(tmp_path)
    empty, full = np.zeros((8, 16, 16)), np.ones((8, 16, 16))
    write(predictions / "a.nii.gz", empty)
    write(references / "a.nii.gz", full)
    write(predictions / "b.nii.gz", full)
    write(references / "b.nii.gz", empty)
    assert evaluate(predictions, references) == 0
    content = json.loads((predictions / "metrics.json").read_text())
    assert content["missed"]["liver"] == 1 and content["imagined"]["liver"] == 1
    rows = {(row["case"], row["class"]): row for row in content["cases"]}
    assert rows["a", "tumour"]["dice"] is None and rows["a", "liver"]["dice"] == 0


def test_all_bad_files_are_named_in_one_pass(tmp_path, capsys):
    predictions, references = folders(tmp_path)
    write(predictions / "a.nii.gz", np.zeros((8, 16, 16)), (1.0, 1.0, 1.0))
    write(references / "b.nii.gz", np.full((8, 16, 16), 7))
    whole = (predictions / "c.nii.gz").read_bytes()
    (predictions / "c.nii.gz").write_bytes(whole[: len(whole) // 2])
    assert evaluate(predictions, references) == 2
    said = capsys.readouterr().err
    assert "a.nii.gz: must lie on the voxels of its reference, but has spacing" in said
    assert "b.nii.gz: label values must be declared" in said and "got 7" in said
    assert "c.nii.gz" in said and said.count("Fix:") == 3
    assert not (predictions / "metrics.csv").exists()


def test_files_without_a_counterpart_are_named(tmp_path, capsys):
    predictions, references = folders(tmp_path)
    (references / "a.nii.gz").unlink()
    (predictions / "b.nii.gz").unlink()
    assert evaluate(predictions, references) == 2
    said = capsys.readouterr().err
    assert "a.nii.gz: is predicted and has no reference" in said
    assert "b.nii.gz: has no prediction" in said and "--partial" in said
    (predictions / "a.nii.gz").unlink()
    assert evaluate(predictions, references, "--partial") == 0
    (tmp_path / "empty").mkdir()
    assert evaluate(tmp_path / "empty", references, "--dataset-json",
                    str(tmp_path / "data" / "dataset.json")) == 2  # fmt: skip
    assert "holds no file *.nii.gz" in capsys.readouterr().err


def test_without_dataset_json_the_fix_is_named(tmp_path, capsys):
    predictions, references = folders(tmp_path)
    (tmp_path / "data" / "dataset.json").unlink()
    assert evaluate(predictions, references) == 2
    assert "Fix: give --dataset-json" in capsys.readouterr().err


@pytest.mark.parametrize("ending", [".nii.gz", ".mha"])
def test_voxels_that_are_no_numbers_are_not_scored_as_background(ending, tmp_path, capsys):
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
    said = capsys.readouterr().err
    rule = "voxels must be finite numbers in float32, got"
    assert f"{references / 'a'}{ending}: {rule} 1 NaN and 0 Inf. Fix: replace them by" in said
    assert f"{predictions / 'b'}{ending}: {rule} 1 NaN and 1 Inf. Fix: replace them by" in said
    assert said.count("Fix:") == 2 and not (predictions / "metrics.csv").exists()


def test_what_macos_leaves_beside_the_files_is_no_case(tmp_path):
    predictions, references = folders(tmp_path)
    (predictions / "._a.nii.gz").write_bytes(b"Mac OS X")
    (references / "._b.nii.gz").write_bytes(b"Mac OS X")
    assert evaluate(predictions, references) == 0
    with open(predictions / "metrics.csv") as file:
        assert {row["case"] for row in csv.DictReader(file)} == set("abc")


@pytest.mark.parametrize("size", ["-5", "nan", "inf"])
def test_a_distance_of_missed_classes_is_a_distance(size, tmp_path, capsys):
    predictions, references = folders(tmp_path)
    assert evaluate(predictions, references, "--missed-distance", size) == 2
    said = capsys.readouterr().err
    assert f"--missed-distance: must be 0 or more, and finite, got {size}. Fix:" in said


def test_all_that_is_wrong_with_the_options_is_named(tmp_path, capsys):
    predictions, references = folders(tmp_path)
    words = ["evaluate", "-i", str(tmp_path / "no"), "-r", str(references / "a.nii.gz"), "-np", "0"]
    assert main([*words, "--tolerances", "inf", "1", "--class-tolerances", "liver=-1", "x"]) == 2
    said = capsys.readouterr().err
    for problem in (
        f"-i: {tmp_path / 'no'} is no folder", f"-r: {references / 'a.nii.gz'} is no folder",
        "-np: must be 1 or more, got 0", "--tolerances: must be 0 or more, and finite, got inf",
        "--class-tolerances liver: must be 0 or more, and finite, got -1",
        "--class-tolerances: must be CLASS=MM, got 'x'",
    ):  # fmt: skip
        assert problem in said
    assert said.count("Fix:") == 6 and not (predictions / "metrics.csv").exists()


def test_the_description_that_the_user_gave_is_named(tmp_path, capsys):
    predictions, references = folders(tmp_path)
    absent, other = tmp_path / "nosuch.json", tmp_path / "other.json"
    assert evaluate(predictions, references, "--dataset-json", str(absent)) == 2
    said = capsys.readouterr().err
    assert f"{absent} cannot be used:\n  nosuch.json: is absent. Fix: correct the path" in said
    other.write_text("{}")
    assert evaluate(predictions, references, "--dataset-json", str(other)) == 2
    said = capsys.readouterr().err
    assert "other.json: lacks the key 'labels'" in said and "dataset.json" not in said


def test_a_class_that_no_case_shows_is_left_out_of_the_foreground_mean(tmp_path):
    predictions, references = folders(tmp_path, LABELS | {"vessel": 3})
    assert evaluate(predictions, references) == 0
    found = json.loads((predictions / "summary.json").read_text())
    assert np.isnan(found["mean"]["3"]["Dice"])  # and so is nnU-Net's foreground mean
    others = [found["mean"][key]["Dice"] for key in ("1", "2")]
    assert found["foreground_mean"]["Dice"] == pytest.approx(np.mean(others))
