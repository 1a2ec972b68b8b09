"""The options of ``semi_nnunet evaluate``, and what is wrong with them."""

import json
import math

import pytest

from semi_nnunet.cli.main import main
from semi_nnunet.evaluation.measuring import evaluate as measure
from tests.evaluation.folders import evaluate, folders


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


def test_without_dataset_json_the_fix_is_named(tmp_path, capsys):
    predictions, references = folders(tmp_path)
    (tmp_path / "data" / "dataset.json").unlink()
    assert evaluate(predictions, references) == 2
    assert "Fix: give --dataset-json" in capsys.readouterr().err


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


def test_from_python_tolerances_are_numbers_or_texts_and_the_tables_are_those_of_the_command(
    tmp_path,
):
    predictions, references = folders(tmp_path)
    assert evaluate(predictions, references, "--class-tolerances", "liver=0", "tumour=9") == 0
    table = (predictions / "metrics.csv").read_text()
    for number, own in enumerate([{"liver": 0, "tumour": 9}, ["liver=0", "tumour=9"]]):
        out = tmp_path / f"out{number}" / "here"
        found = measure(predictions, references, out=out, class_tolerances=own, processes=1)
        assert (out / "metrics.csv").read_text() == table
        assert (found.folder, found.cases) == (out, 3)
        assert found.content["mean"]["tumour"]["nsd_surfel_own"] == 1.0


def test_the_description_beside_the_predictions_is_looked_at_first(tmp_path, capsys):
    predictions, references = folders(tmp_path)
    content = json.loads((tmp_path / "data" / "dataset.json").read_text())
    renamed = {"background": 0, "kidney": 1, "cyst": 2}
    (predictions / "dataset.json").write_text(json.dumps({**content, "labels": renamed}))
    assert evaluate(predictions, references) == 0
    assert "kidney" in capsys.readouterr().out


def test_a_case_is_measured_for_the_classes_that_it_annotates(tmp_path, capsys):
    predictions, references = folders(tmp_path)
    assert evaluate(predictions, references) == 0
    plain = json.loads((predictions / "metrics.json").read_text())
    path = tmp_path / "data" / "dataset.json"
    partial = {"a": ["liver"], "[b]": ["tumour"], "c": ["liver", "tumour"]}
    path.write_text(json.dumps({**json.loads(path.read_text()), "annotated": partial}))
    assert evaluate(predictions, references) == 0
    found = json.loads((predictions / "metrics.json").read_text())
    lines = (predictions / "metrics.csv").read_text().splitlines()
    assert len(lines) == 7 and lines[2] == "a,tumour" + "," * (lines[0].count(",") - 1)
    for before, after in zip(plain["cases"], found["cases"], strict=True):
        if (before["case"], before["class"]) == ("a", "tumour"):
            before = {**dict.fromkeys(before), "case": "a", "class": "tumour"}
        assert after == before
    rest = [c["dice"] for c in plain["cases"] if c["class"] == "tumour" and c["case"] != "a"]
    assert found["mean"]["tumour"]["dice"] == pytest.approx(sum(rest) / 2)
    assert found["mean"]["liver"] == plain["mean"]["liver"]
    summary = json.loads((predictions / "summary.json").read_text())
    assert summary["mean"]["2"]["Dice"] == pytest.approx(sum(rest) / 2)
    assert math.isnan(summary["metric_per_case"][0]["metrics"]["2"]["n_ref"])
