"""The options of ``semi_nnunet evaluate``, and reports of wrong ones."""

import json
import math

import pytest

from semi_nnunet.cli.main import main
from semi_nnunet.evaluation.measuring import evaluate_folders as measure
from semi_nnunet.evaluation.measuring import find_changed_inputs
from tests.evaluation.folders import evaluate, folders


def test_each_class_may_have_its_own_tolerance(tmp_path, capsys):
    predictions, references = folders(tmp_path)
    assert evaluate(predictions, references, "--class-tolerances", "liver=0", "tumour=9") == 0
    content = json.loads((predictions / "metrics.json").read_text())
    assert content["mean"]["tumour"]["nsd_surfel_own"] == 1.0
    assert content["mean"]["liver"]["nsd_surfel_own"] < 1.0
    assert content["tolerances"]["liver"]["own"] == 0
    assert evaluate(predictions, references, "--class-tolerances", "lever=1") == 2
    assert "liver, tumour; got lever" in capsys.readouterr().err
    assert evaluate(predictions, references, "--class-tolerances", "liver") == 2
    assert "CLASS=MM" in capsys.readouterr().err
    assert evaluate(predictions, references, "--class-tolerances", "liver=1", "liver=2") == 2
    assert "liver one tolerance" in capsys.readouterr().err


def test_without_dataset_json_the_option_is_named(tmp_path, capsys):
    predictions, references = folders(tmp_path)
    (tmp_path / "data" / "dataset.json").unlink()
    assert evaluate(predictions, references) == 2
    assert "--dataset-json" in capsys.readouterr().err


def test_errors_name_the_description_that_the_user_gave(tmp_path, capsys):
    predictions, references = folders(tmp_path)
    absent, other = tmp_path / "nosuch.json", tmp_path / "other.json"
    assert evaluate(predictions, references, "--dataset-json", str(absent)) == 2
    message = capsys.readouterr().err
    assert f"{absent} cannot be used" in message and "is absent" in message
    other.write_text("{}")
    assert evaluate(predictions, references, "--dataset-json", str(other)) == 2
    message = capsys.readouterr().err
    assert "other.json: lacks the key 'labels'" in message and "dataset.json" not in message


@pytest.mark.parametrize("size", ["-5", "nan", "inf"])
def test_the_distance_of_missed_classes_must_be_finite_and_not_negative(size, tmp_path, capsys):
    predictions, references = folders(tmp_path)
    assert evaluate(predictions, references, "--missed-distance", size) == 2
    message = capsys.readouterr().err
    assert "--missed-distance: " in message and f"got {size}" in message


def test_all_wrong_options_are_reported(tmp_path, capsys):
    predictions, references = folders(tmp_path)
    words = ["evaluate", "-i", str(tmp_path / "no"), "-r", str(references / "a.nii.gz"), "-np", "0"]
    assert main([*words, "--tolerances", "inf", "1", "--class-tolerances", "liver=-1", "x"]) == 2
    message = capsys.readouterr().err
    for problem in (
        f"-i: {tmp_path / 'no'} ", f"-r: {references / 'a.nii.gz'} ", "-np: ", "--tolerances: ",
        "--class-tolerances liver: ", "--class-tolerances: must be CLASS=MM",
    ):  # fmt: skip
        assert problem in message
    assert message.count("Fix:") == 6 and not (predictions / "metrics.csv").exists()


def test_python_takes_tolerances_as_numbers_or_texts_and_writes_the_tables_of_the_command(
    tmp_path,
):
    predictions, references = folders(tmp_path)
    assert evaluate(predictions, references, "--class-tolerances", "liver=0", "tumour=9") == 0
    table = (predictions / "metrics.csv").read_text()
    for number, sizes in enumerate([{"liver": 0, "tumour": 9}, ["liver=0", "tumour=9"]]):
        out = tmp_path / f"out{number}" / "here"
        result = measure(predictions, references, out=out, class_tolerances=sizes, processes=1)
        assert (out / "metrics.csv").read_text() == table
        assert (result.folder, result.cases) == (out, 3)
        assert result.content["mean"]["tumour"]["nsd_surfel_own"] == 1.0


def test_the_description_next_to_the_predictions_comes_first(tmp_path, capsys):
    predictions, references = folders(tmp_path)
    content = json.loads((tmp_path / "data" / "dataset.json").read_text())
    renamed = {"background": 0, "kidney": 1, "cyst": 2}
    (predictions / "dataset.json").write_text(json.dumps({**content, "labels": renamed}))
    assert evaluate(predictions, references) == 0
    assert "kidney" in capsys.readouterr().out


def test_a_case_is_measured_only_for_the_classes_that_it_annotates(tmp_path, capsys):
    predictions, references = folders(tmp_path)
    assert evaluate(predictions, references) == 0
    plain = json.loads((predictions / "metrics.json").read_text())
    path = tmp_path / "data" / "dataset.json"
    partial = {"a": ["liver"], "[b]": ["tumour"], "c": ["liver", "tumour"]}
    path.write_text(json.dumps({**json.loads(path.read_text()), "annotated": partial}))
    assert evaluate(predictions, references) == 0
    content = json.loads((predictions / "metrics.json").read_text())
    lines = (predictions / "metrics.csv").read_text().split("\n")[:-2]
    assert len(lines) == 7 and lines[2] == "a,tumour" + "," * (lines[0].count(",") - 1)
    for full_row, row in zip(plain["cases"], content["cases"], strict=True):
        if (full_row["case"], full_row["class"]) == ("a", "tumour"):
            full_row = {**dict.fromkeys(full_row), "case": "a", "class": "tumour"}
        assert row == full_row
    rest = [c["dice"] for c in plain["cases"] if c["class"] == "tumour" and c["case"] != "a"]
    assert content["mean"]["tumour"]["dice"] == pytest.approx(sum(rest) / 2)
    assert content["mean"]["liver"] == plain["mean"]["liver"]
    summary = json.loads((predictions / "summary.json").read_text())
    assert summary["mean"]["2"]["Dice"] == pytest.approx(sum(rest) / 2)
    assert math.isnan(summary["metric_per_case"][0]["metrics"]["2"]["n_ref"])


def test_measures_with_other_options_do_not_count_as_those_of_crossval(tmp_path):
    predictions, references = folders(tmp_path)
    description = tmp_path / "data" / "dataset.json"
    measure(predictions, references, processes=1)
    assert not find_changed_inputs(predictions, references, description)
    for options in ({"missed_distance": 50.0}, {"class_tolerances": {"liver": 1, "tumour": 2}}):
        measure(predictions, references, processes=1, **options)
        assert find_changed_inputs(predictions, references, description)
