"""Distilled data sets: labelled and pseudo-labelled cases, none of the latter in a validation."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

from semi_nnunet.cli.main import main
from semi_nnunet.data.patients import itself, make_folds, patient_finder, split_patients
from semi_nnunet.data.sampling import pseudo_labelled_cases
from semi_nnunet.pseudo_labels.choice import Choice, case_scores, choose
from semi_nnunet.pseudo_labels.distilled_dataset import folds_of, require_folders, write_folds
from semi_nnunet.pseudo_labels.pool import Request, source_of
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json, write_json


def distil(raw: Path, pool, *more: str) -> list[str]:
    words = ["distil", "-d", raw.name, "-o", "77", "--base", *pool.names, "--device", "cpu"]
    return [*words, "-np", "1", *more]


def cases(folder: Path) -> set[str]:
    return {path.name[:12] for path in folder.iterdir()} if folder.is_dir() else set()


def test_the_surest_become_training_cases_of_every_fold_and_of_no_validation(raw, pool, capfd):
    words = distil(raw, pool, "--keep", "0.5", "--confidence", "0.6", "--score", "disagreement")
    assert main(words) == 0
    target = next(raw.parent.glob("Dataset077_*"))
    said = capfd.readouterr().out
    assert (
        "5 labelled and 2 pseudo-labelled cases" in said and "semi_nnunet preprocess -d 77" in said
    )
    record = read_json(target / "distil.json")
    taken, labelled = set(record["uncertainty"]), cases(raw / "imagesTr")
    assert len(taken) == 2 and taken < cases(raw / "imagesUn")
    assert [one["model"] for one in record["models"]] == [model.name for model in pool.models]
    assert cases(target / "imagesTr") == cases(target / "labelsTr") == labelled | taken
    assert cases(target / "imagesUn") == cases(raw / "imagesUn") - taken
    assert read_json(target / "dataset.json")["labels"]["ignore"] == 4
    for case in labelled:  # what people drew stays as it is
        name = f"{case}.nii.gz"
        assert (target / "labelsTr" / name).read_bytes() == (raw / "labelsTr" / name).read_bytes()
    for case in taken:
        name = f"{case}_0000.nii.gz"
        assert (target / "imagesTr" / name).read_bytes() == (raw / "imagesUn" / name).read_bytes()
        label = sitk.ReadImage(str(target / "labelsTr" / f"{case}.nii.gz"))
        assert label.GetSize() == sitk.ReadImage(str(target / "imagesTr" / name)).GetSize()
        assert set(np.unique(sitk.GetArrayFromImage(label))) <= {0, 1, 2, 3, 4}
    preprocessed = Path(os.environ["nnUNet_preprocessed"]) / target.name
    folds = read_json(preprocessed / "splits_final.json")
    assert len(folds) == 5
    assert pseudo_labelled_cases(preprocessed) == taken
    assert sorted(case for fold in folds for case in fold["val"]) == sorted(labelled)
    for fold in folds:
        assert taken <= set(fold["train"]) and not set(fold["train"]) & set(fold["val"])
    verify_dataset_integrity(str(target), num_processes=1)  # stock nnU-Net takes it
    before = {path: path.stat().st_mtime_ns for path in target.rglob("*")}
    assert main(words) == 0
    assert {path: path.stat().st_mtime_ns for path in target.rglob("*")} == before
    assert main([*words, "--most", "0.9"]) == 2
    assert "was not made by this command" in capfd.readouterr().err


def test_what_is_set_aside_is_in_no_training(raw, pool, capfd):
    test = next((raw / "imagesTs").iterdir())
    shutil.copy(test, raw / "imagesUn" / "leak_0000.nii.gz")
    assert main(distil(raw, pool, "--skip-bad")) == 0
    target = next(raw.parent.glob("Dataset077_*"))
    assert len(cases(target / "labelsTr")) == 9
    assert not list(target.rglob("leak*"))


def test_folds_of_the_source_are_taken_over_and_those_of_the_target_kept(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    folds = [{"train": ["a", "b"], "val": ["c"]}, {"train": ["c"], "val": ["a", "b"]}]
    write_json(source / "splits_final.json", folds)
    assert folds_of(source, ["a", "b", "c"], itself) == folds
    assert write_folds(folds, target, ["p"], itself) == 2
    made = read_json(target / "splits_final.json")
    assert made[1] == {"train": ["c", "p"], "val": ["a", "b"]}
    write_json(target / "splits_final.json", made[:1])  # somebody's choice
    assert write_folds(folds, target, ["p"], itself) == 1
    with pytest.raises(UserError, match="folds of other cases"):
        write_folds(folds, target, ["q"], itself)


def test_without_leftovers_stock_nnunet_goes_on(raw, pool, capfd):
    assert main(distil(raw, pool, "--symlink")) == 0
    target = next(raw.parent.glob("Dataset077_*"))
    assert "semi_nnunet preprocess -d 77" in capfd.readouterr().out
    assert not (target / "imagesUn").exists() and len(cases(target / "imagesTr")) == 9
    assert "ignore" not in read_json(target / "dataset.json")["labels"]
    assert all(path.is_symlink() for path in (target / "imagesTr").iterdir())


def test_an_unlabelled_image_that_is_a_test_image_is_refused(raw, pool, capfd):
    test = next((raw / "imagesTs").iterdir())
    shutil.copy(test, raw / "imagesUn" / "leak_0000.nii.gz")
    assert main(distil(raw, pool)) == 2
    assert "its voxels equal those of the test case" in capfd.readouterr().err


def test_models_of_another_data_set_are_refused(raw, pool, capfd):
    description = read_json(raw / "dataset.json")
    write_json(raw / "dataset.json", {**description, "labels": {"background": 0, "one": 1}})
    assert main(distil(raw, pool)) == 2
    assert f"must have the labels of {raw.name}" in capfd.readouterr().err


def scored(folder: Path, scores: dict[str, dict[str, float]]) -> Request:
    """A pool that was labelled, as far as its lists say."""
    for name in ("labels", "parts"):
        (folder / name).mkdir()
    lines = []
    for case, values in scores.items():
        image = folder / f"{case}_0000.png"
        image.touch()
        facts = {"uncertainty": values, "ignored": 0.0}
        entry = {"case": case, "source": source_of([str(image)]), "files": {}, "facts": facts}
        lines.append(json.dumps(entry))
    (folder / "parts" / "part_0.jsonl").write_text("\n".join(lines) + "\n")
    request = Request(folder, folder, ())
    request.__dict__["cases"] = {case: [str(folder / f"{case}_0000.png")] for case in scores}
    return request


def test_the_choice_is_of_the_surest(tmp_path):
    scores = {f"case{i}": {"entropy": i / 10} for i in range(10)}
    request = scored(tmp_path, scores)

    def chosen(choice: Choice) -> dict[str, float]:
        return choose(case_scores(request, choice), choice)

    assert list(chosen(Choice(keep=0.2))) == ["case0", "case1"]
    assert len(chosen(Choice(keep=3))) == 3
    assert len(chosen(Choice(keep=1.0))) == 10
    assert list(chosen(Choice(most=0.05))) == ["case0"]
    assert len(chosen(Choice(keep=0.5, most=0.25))) == 3
    with pytest.raises(UserError, match="no case has an uncertainty of at most -1"):
        chosen(Choice(most=-1))
    with pytest.raises(UserError, match="'disagreement' needs several models"):
        chosen(Choice(score="disagreement"))


def test_cases_set_aside_are_not_scored_and_all_of_them_are_too_many(tmp_path):
    request = scored(tmp_path, {"a": {"entropy": 0.1}, "b": {"entropy": 0.2}})
    assert case_scores(request, Choice(), {"a"}) == {"b": 0.2}
    with pytest.raises(UserError, match="no case is left to choose from"):
        choose(case_scores(request, Choice(), {"a", "b"}), Choice())


def test_records_of_earlier_versions_are_known_again():
    assert Choice(0.5).record() == {"keep": 0.5, "most": None, "score": "entropy"}


def test_a_single_labelled_case_has_no_fold(tmp_path):
    folds = folds_of(tmp_path, ["only"], itself)
    assert write_folds(folds, tmp_path, ["pseudo"], itself) == 0
    assert write_folds(folds, tmp_path, ["pseudo"], itself) == 0  # again
    assert read_json(tmp_path / "splits_final.json") == []


def test_pseudo_labels_of_a_patient_are_in_no_training_that_validates_on_it(tmp_path):
    labelled, taken = ["p1_a", "p1_b", "p2_a", "p3_a"], ["p1_c", "p2_b", "p9_a"]
    patient_of = patient_finder({"patient": "p[0-9]"})
    folds = folds_of(tmp_path / "source", labelled, patient_of)
    assert write_folds(folds, tmp_path, taken, patient_of) == 3
    for fold in read_json(tmp_path / "splits_final.json"):
        assert not split_patients(fold, patient_of) and {*fold["val"]} <= {*labelled}
        assert len(fold["train"]) + len(fold["val"]) == 7 - (fold["val"] != ["p3_a"])
    assert write_folds(folds, tmp_path, taken, patient_of) == 3
    # as somebody who deletes the file gets them, too
    again = make_folds([*labelled, *taken], patient_of, taken)
    assert again == read_json(tmp_path / "splits_final.json")


def test_folds_of_before_patients_were_told_are_refused(tmp_path):
    patient_of = patient_finder({"patient": "p[0-9]"})
    torn = [{"train": ["p1_a", "p2_a"], "val": ["p1_b"]}]
    write_json(tmp_path / "splits_final.json", torn)
    with pytest.raises(UserError, match=r"fold 0 of .* the same patients: p1\. Fix: delete"):
        folds_of(tmp_path, ["p1_a", "p1_b", "p2_a"], patient_of)
    whole = [{"train": ["p2_a"], "val": ["p1_a", "p1_b"]}]
    write_json(tmp_path / "splits_final.json", [{**whole[0], "train": ["p2_a", "p1_c"]}])
    with pytest.raises(UserError, match="fold 0 of"):
        write_folds(whole, tmp_path, ["p1_c"], patient_of)


def test_files_that_are_listed_one_by_one_are_refused(tmp_path):
    write_json(tmp_path / "dataset.json", {"dataset": {"case": {}}})
    with pytest.raises(UserError, match="lists its files one by one"):
        require_folders(tmp_path)
