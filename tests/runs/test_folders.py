"""nnU-Net's folders of a data set, and what lies in them."""

from __future__ import annotations

import os
import shutil

from semi_nnunet.cli.main import main
from semi_nnunet.runs.folders import COPIED_WITHIN_S, find_folders, is_older, load_patient_finder
from semi_nnunet.util.files import write_json
from tests.runs.parsing import parse_command


def test_a_data_set_that_does_not_exist_is_named(folders, capsys):
    name = folders.raw.name
    for verb in (["status"], ["compare"], ["crossval", "-c", "2d"], ["report", "-o", "x.html"]):
        assert main([*verb, "-d", f"{name}x"]) == 2
        assert f"did you mean '{name}'?" in capsys.readouterr().err
    assert main(["crossval", "-d", name, "-c", "2d", "-p", "dataset"]) == 2
    assert "dataset.json holds no plans. Fix: choose -p from " in capsys.readouterr().err
    words = ["-d", name, "-p", "tiny", "--baseline", "SemiBaselin"]
    assert main(["report", "-o", "x.html", *words]) == 2
    assert "did you mean 'SemiBaselineTrainer'?" in capsys.readouterr().err


def test_a_number_and_a_name_are_the_same_data_set(empty, monkeypatch):
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(getattr(empty, name).parent))
    assert find_folders("500") == find_folders("Dataset500_Empty") == empty
    shutil.rmtree(empty.raw), shutil.rmtree(empty.preprocessed)  # only results were copied
    assert find_folders("Dataset500_Empty") == empty


def put(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def test_hidden_files_are_no_test_cases(empty):
    assert empty.test_images is None and empty.test_labels is None and empty.test_cases() == []
    for name in ("imagesTs", "labelsTs"):
        put(empty.raw / name, ".DS_Store")
    assert empty.test_images is None and empty.test_labels is None
    put(empty.raw / "imagesTs", "b_0000.nii.gz", "b_0001.nii.gz", "a_0000.nii.gz")
    assert sorted(empty.test_cases()) == ["a", "b"]  # of several channels, once
    assert empty.test_cases_without_labels() == []  # there are no labels to measure with
    put(empty.raw / "labelsTs", "b.nii.gz", "stranger.nii.gz")
    assert empty.test_cases_without_labels() == ["a"]


def test_the_ending_is_that_of_the_prepared_data_set_or_of_the_raw_one(empty):
    write_json(empty.raw / "dataset.json", {"file_ending": ".png"})
    assert empty.file_ending == ".nii.gz"
    (empty.preprocessed / "dataset.json").unlink()
    assert empty.file_ending == ".png"
    (empty.raw / "dataset.json").unlink()
    model = empty.results / "Trainer__plans__2d"
    model.mkdir()
    write_json(model / "dataset.json", {"file_ending": ".bmp"})
    assert empty.file_ending == ".bmp"


def test_patients_come_from_the_first_existing_description(empty):
    model = empty.results / "Trainer__plans__2d"
    model.mkdir()
    for number, folder in enumerate((empty.raw, empty.preprocessed, model), start=1):
        write_json(folder / "dataset.json", {"patient": "p" + "." * number})
    for number, folder in enumerate((empty.raw, empty.preprocessed, model), start=1):
        assert load_patient_finder(empty)("p12345") == "p12345"[: number + 1]
        (folder / "dataset.json").unlink()
    assert load_patient_finder(empty)("p12345") == "p12345"


def test_a_result_is_older_than_its_source_but_for_the_seconds_of_a_copy(tmp_path):
    result, source = tmp_path / "metrics.csv", tmp_path / "checkpoint.pth"
    assert not is_older(result, source)
    result.touch()
    assert not is_older(result, source)  # there is nothing to be older than
    source.touch()
    for seconds, older in (
        (-1000, False),
        (COPIED_WITHIN_S - 1, False),
        (COPIED_WITHIN_S + 1, True),
    ):
        os.utime(result, (1e9, 1e9)), os.utime(source, (1e9 + seconds, 1e9 + seconds))
        assert is_older(result, source) == older


def test_the_command_that_measures_is_one_of_ours(empty):
    words = empty.evaluation_command(empty.results / "test", empty.references, 3)
    parsed = parse_command(words)
    assert words[0] == "semi_nnunet" and parsed.incomplete
    assert [str(empty.results / "test"), str(empty.references)] == [str(words[3]), str(words[5])]
