"""The written tables: a CSV of all cases, JSON with means, and nnU-Net's summary.json."""

import csv
import json

import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from semi_nnunet.evaluation.metrics import Measure, mask_metrics
from tests.evaluation.folders import LABELS, REGIONS, evaluate, folders, write


@pytest.mark.parametrize("labels", [LABELS, REGIONS], ids=["labels", "regions_and_ignore"])
def test_the_summary_equals_that_of_nnunet(labels, tmp_path):
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
    for our_case, their_case in zip(
        ours["metric_per_case"], theirs["metric_per_case"], strict=True
    ):
        assert our_case == their_case


def test_tables_hold_every_case_and_class_in_mm_on_the_native_grid(tmp_path, capsys):
    predictions, references = folders(tmp_path)
    assert evaluate(predictions, references, "--tolerances", "1.5") == 0
    with open(predictions / "metrics.csv", encoding="utf-8") as file:
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


def test_a_class_that_no_case_shows_is_left_out_of_the_foreground_mean(tmp_path):
    predictions, references = folders(tmp_path, LABELS | {"vessel": 3})
    assert evaluate(predictions, references) == 0
    summary = json.loads((predictions / "summary.json").read_text())
    assert np.isnan(summary["mean"]["3"]["Dice"])  # and so is nnU-Net's foreground mean
    dice = [summary["mean"][key]["Dice"] for key in ("1", "2")]
    assert summary["foreground_mean"]["Dice"] == pytest.approx(np.mean(dice))
