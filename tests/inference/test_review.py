"""Tests of predict --uncertainty: maps with geometry, review.csv, calibration, label tables."""

from __future__ import annotations

import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk

from semi_nnunet.cli.main import main
from semi_nnunet.inference.predict import predict_images
from semi_nnunet.inference.review import (
    Calibration,
    assess_prediction,
    calibrate_expected_dice,
    count_near_voxels,
    expect_dice,
    write_facts,
    write_review,
)
from semi_nnunet.raw.description import list_cases
from semi_nnunet.reporting.label_tables import name_label_values, write_label_tables
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_csv, write_json
from tests.pseudo_labels.labelling import read

LABELS = {"background": 0, "organ": 1, "lesion": 2}
REGIONS = {"background": 0, "whole": [1, 2], "core": 2}
DESCRIPTION = {"labels": LABELS, "file_ending": ".nii.gz"}


def make_probabilities(labels: np.ndarray, certainty: float, channels: int = 3) -> np.ndarray:
    rest = (1 - certainty) / (channels - 1)
    hot = np.stack([labels == c for c in range(channels)])
    return np.where(hot, certainty, rest).astype(np.float32)


def test_uncertainty_adds_files_and_keeps_the_labels(pool, tmp_path, capsys):
    (model, *_), plain, out = pool.models, tmp_path / "plain", tmp_path / "out"
    for path in sorted(pool.images.iterdir())[2:]:
        path.unlink()
    words = ["-m", str(model.folder), "-i", str(pool.images), "--device", "cpu"]
    assert main(["predict", *words, "-o", str(plain)]) == 0
    assert main(["predict", *words, "-o", str(out), "--uncertainty"]) == 0
    assert "calibrated" in capsys.readouterr().out
    cases = list_cases(plain, ".nii.gz")
    assert list_cases(out, ".nii.gz") == cases  # evaluate reads the folder as before
    _, rows = read_csv(out / "review.csv")
    assert sorted(row["case"] for row in rows) == sorted(cases)
    dice = [float(row["predicted_dice"] or -1) for row in rows]
    assert dice == sorted(dice)
    for row in rows:
        assert np.array_equal(read(out / row["label"]), read(plain / row["label"]))
        image = sitk.ReadImage(str(pool.images / f"{row['case']}_0000.nii.gz"))
        written = sitk.ReadImage(str(out / row["map"]))
        assert written.GetSize() == image.GetSize()
        for name in ("GetSpacing", "GetOrigin", "GetDirection"):
            assert np.allclose(getattr(written, name)(), getattr(image, name)())
        percent = sitk.GetArrayFromImage(written)
        assert 0 < percent.max() <= 100
    assert len(list(out.glob("*.ctbl"))) == 1


def test_a_map_does_not_outlive_its_prediction(pool, tmp_path):
    (model, *_), out = pool.models, tmp_path / "out"
    first, *others = sorted(pool.images.iterdir())
    for path in others[1:]:
        path.unlink()
    options = {"device": "cpu", "speed": "fast"}
    files = predict_images(model.folder, pool.images, out, uncertainty=True, **options)
    map_file = out / "uncertainty" / files[0].name
    before = map_file.stat().st_mtime_ns
    predict_images(model.folder, pool.images, out, uncertainty=True, resume=True, **options)
    assert map_file.stat().st_mtime_ns == before  # a finished case is kept
    map_file.unlink()  # as after a kill
    predict_images(model.folder, pool.images, out, uncertainty=True, resume=True, **options)
    assert map_file.is_file() and len(read_csv(out / "review.csv")[1]) == 2
    shutil.copy(others[0], first)  # another image: its prediction and the list are outdated
    predict_images(model.folder, pool.images, out, resume=True, **options)
    assert not map_file.is_file() and not (out / "review.csv").is_file()


def test_uncertainty_needs_files_and_all_tiles(pool, tmp_path):
    folder = pool.models[0].folder
    with pytest.raises(UserError, match="--coarse"):
        predict_images(folder, pool.images, tmp_path / "out", coarse=folder, uncertainty=True)
    arrays = [np.zeros((1, 4, 16, 16), np.float32)]
    with pytest.raises(UserError, match="folder of images"):
        predict_images(folder, arrays, spacings=[(1, 1, 1)], device="cpu", uncertainty=True)


def test_certain_predictions_expect_a_dice_of_one_and_unsure_ones_less():
    labels = np.zeros((2, 6, 6), int)
    labels[0, 1:4, 1:4], labels[0, 4, 4] = 1, 2
    percent, facts = assess_prediction(labels, make_probabilities(labels, 1.0), DESCRIPTION)
    assert percent.max() == 0 and facts["expected_dice"] == {"organ": 1.0, "lesion": 1.0}
    unsure = make_probabilities(labels, 1.0)
    unsure[:, 1] = 1 / 3
    percent, facts = assess_prediction(labels, unsure, DESCRIPTION)
    assert facts["slice"] == 2 and percent[1].min() == 100 and percent[0].max() == 0
    assert 0 < facts["expected_dice"]["lesion"] < facts["expected_dice"]["organ"] < 1


def test_the_expected_dice_is_that_of_labels_drawn_from_the_probabilities():
    rng = np.random.default_rng(0)
    p = np.clip(rng.normal(0.5, 0.3, (1, 40, 40)), 0, 1)  # no voxel is far from the foreground
    labels = (p > 0.5).astype(int)
    dice = []
    for _ in range(50):
        truth = rng.random(p.shape) < p
        dice.append(2 * (truth & (labels > 0)).sum() / (truth.sum() + labels.sum()))
    declared = {"background": 0, "organ": 1}
    expected = expect_dice(labels, np.stack([1 - p, p]), declared)["organ"]
    assert expected == pytest.approx(np.mean(dice), abs=0.01)


def test_faint_probabilities_far_away_do_not_count():
    labels = np.zeros((1, 60, 60), int)
    labels[0, 5:10, 5:10] = 1
    p = np.full(labels.shape, 0.0)
    p[labels > 0] = 0.9
    declared = {"background": 0, "organ": 1}
    before = expect_dice(labels, np.stack([1 - p, p]), declared)
    p[0, 30:] = 0.05
    assert expect_dice(labels, np.stack([1 - p, p]), declared) == before


def test_regions_have_a_channel_each():
    labels = np.zeros((1, 4, 4), int)
    labels[0, :2], labels[0, 0] = 1, 2
    probabilities = np.stack([labels > 0, labels == 2]).astype(np.float32)
    expected = expect_dice(labels, probabilities, REGIONS)
    assert expected == {"whole": 1.0, "core": 1.0}
    probabilities[1] *= 0.5
    expected = expect_dice(labels, probabilities, REGIONS)
    assert expected["whole"] == 1.0 and expected["core"] == pytest.approx(2 / 3)


def test_the_worst_case_stands_first_and_nothing_predicted_before_it(tmp_path):
    facts = {
        "good": {"organ": 0.9, "lesion": 0.8},
        "bad": {"organ": 0.6, "lesion": 0.2},
        "no lesion": {"organ": 0.7, "lesion": None},
        "nothing": {"organ": None, "lesion": None},
    }
    (tmp_path / "uncertainty").mkdir()
    for case, expected in facts.items():
        write_facts(tmp_path, case, {"expected_dice": expected, "slice": 3})
        (tmp_path / "uncertainty" / f"{case}.nii.gz").write_bytes(b"map")
    calibration = Calibration(slope=0.5, intercept=0.1, cases=20)
    path = write_review(tmp_path, [*facts, "not predicted yet"], DESCRIPTION, calibration)
    rows = read_csv(path)[1]
    assert [row["case"] for row in rows] == ["nothing", "bad", "no lesion", "good"]
    assert float(rows[1]["predicted_dice"]) == pytest.approx(0.1 + 0.5 * 0.4)
    assert float(rows[1]["uncertainty_lesion"]) == pytest.approx(0.8)
    assert all((tmp_path / row["map"]).is_file() for row in rows)
    assert rows[1]["reason"].startswith("lesion") and "slice 3" in rows[1]["reason"]
    assert "lesion" in rows[2]["reason"] and rows[2]["uncertainty_lesion"] == ""


@pytest.mark.parametrize("count", [0, 5, 12])
@pytest.mark.parametrize("partial", [False, True])
def test_validation_cases_with_probabilities_calibrate(pool, count, partial):
    model = pool.models[0]
    folder = model.folder / "fold_0" / "validation"
    labels = np.zeros((2, 8, 8), np.uint8)
    labels[:, 2:6, 2:6] = 1
    channels, cases = len(model.dataset_json["labels"]), []
    _, first, second, *_ = model.dataset_json["labels"]
    if partial:  # its Dice is unknown
        labels[:, :2] = 2
        description = {**model.dataset_json, "annotated": {"case_*": [first]}}
        write_json(model.folder / "dataset.json", description)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        case = f"case_{number}"
        sitk.WriteImage(sitk.GetImageFromArray(labels), str(folder / f"{case}.nii.gz"))
        probabilities = make_probabilities(labels, 0.99 - 0.04 * number, channels)
        probabilities[2, labels == 2] = 0.6
        np.savez(folder / f"{case}.npz", probabilities=probabilities)
        declared = model.dataset_json["labels"]
        expected = expect_dice(labels, probabilities, declared)
        assert (expected[second] is None) is not partial
        metrics = {"1": {"Dice": expected[first] - 0.2}, "2": {"Dice": float("nan")}}
        cases.append({"prediction_file": str(folder / f"{case}.nii.gz"), "metrics": metrics})
    write_json(folder / "summary.json", {"metric_per_case": cases})
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    calibration = calibrate_expected_dice(model, SimpleITKIO())
    if count < 10:
        assert calibration.correct(0.9) == 0.9 and "not calibrated" in str(calibration)
    else:
        assert calibration.correct(0.9) == pytest.approx(0.7, abs=1e-6)
        assert calibration.cases == count


@pytest.mark.parametrize(
    ("spacing", "network", "near"),
    [
        ((2.0, 1.0, 1.0), (2.0, 1.0, 1.0), 3),
        ((999.0, 1.0, 1.0), (4.0, 4.0), 12),  # a picture
        ((2.0, 1.0, 1.0), (4.0, 2.0, 2.0), 6),
        ((8.0, 8.0, 8.0), (1.0, 1.0, 1.0), 1),
    ],
)
def test_the_margin_is_as_wide_in_images_of_any_resolution(spacing, network, near):
    plans = SimpleNamespace(transpose_forward=[0, 1, 2])
    assert count_near_voxels(spacing, plans, SimpleNamespace(spacing=network)) == near


@pytest.mark.parametrize("number", [1, 3, 20])
def test_label_tables_hold_the_values_and_names(tmp_path, number):
    names = [f'class {n} "x"' for n in range(1, number + 1)]
    labels = {"background": 0, **{name: n for n, name in enumerate(names, 1)}, "ignore": 99}
    snap, slicer = write_label_tables(tmp_path, {"labels": labels})
    line = re.compile(r'(\d+) (\d+) (\d+) (\d+) ([01]) ([01]) ([01]) "([^"]*)"')
    matches = [line.fullmatch(text) for text in snap.read_text("utf-8").splitlines()[2:]]
    assert all(matches)
    parsed = {int(m[1]): (m[8], (int(m[2]), int(m[3]), int(m[4]))) for m in matches if m}
    assert {*parsed} == {*range(number + 1), 99} and parsed[0][0] == "Clear Label"
    assert [parsed[n][0] for n in range(1, number + 1)] == [
        f"class {n} 'x" for n in range(1, number + 1)
    ]
    assert parsed[99][0] == "ignore"
    rows = [text.split(" ") for text in slicer.read_text("utf-8").splitlines()[2:]]
    assert all(len(row) == 6 for row in rows)
    colours = {int(row[0]): tuple(map(int, row[2:5])) for row in rows}
    assert {value: colour for value, (_, colour) in parsed.items()} == colours
    assert len({*colours.values()}) == number + 2  # each class looks different


@pytest.mark.parametrize("name", ["", "  ", "'", '"', "a\tb", "Läsion, groß"])
def test_label_tables_survive_any_name(tmp_path, name):
    """A name without a letter shifts the columns, or stops the reader, of 3D Slicer."""
    snap, slicer = write_label_tables(tmp_path, {"labels": {"background": 0, name: 1}})
    (line,) = snap.read_text("utf-8").splitlines()[3:]
    assert re.fullmatch(r'1 (\d+ ){3}1 1 1 "[^"\']+"', line)
    (row,) = slicer.read_text("utf-8").splitlines()[3:]
    assert len(row.split(" ")) == 6 and row.split(" ")[1].strip("_'")


def test_regions_are_named_by_the_value_that_is_painted():
    description = {"labels": REGIONS, "regions_class_order": [1, 2]}
    assert {value: name for value, (name, _) in name_label_values(description).items()} == {
        1: "whole",
        2: "core",
    }
