"""Distilled data sets: the most certain cases train in every fold and validate in none."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

from semi_nnunet.cli.main import main
from semi_nnunet.pseudo_labels.distillation import (
    Distillation,
    find_option_problems,
    list_next_commands,
    make_target,
)
from semi_nnunet.pseudo_labels.pool import LabellingRequest
from semi_nnunet.raw.folds import read_pseudo_labelled_cases
from semi_nnunet.runs.folders import Folders
from semi_nnunet.util.files import read_json, write_json
from tests.runs.parsing import parse_command


def distil_words(raw: Path, pool, *more: str) -> list[str]:
    words = [
        "pseudo-dataset",
        "-d",
        raw.name,
        "--new-id",
        "77",
        "-m",
        *pool.names,
        "--device",
        "cpu",
    ]
    return [*words, "-np", "1", *more]


def list_cases(folder: Path) -> set[str]:
    return {path.name[:12] for path in folder.iterdir()} if folder.is_dir() else set()


def test_the_most_certain_cases_train_in_every_fold_and_validate_in_none(raw, pool, capfd):
    words = distil_words(
        raw, pool, "--keep", "0.5", "--confidence", "0.6", "--score", "disagreement"
    )
    assert main(words) == 0
    target = next(raw.parent.glob("Dataset077_*"))
    output = capfd.readouterr().out
    assert (
        "5 labelled and 2 pseudo-labelled cases" in output
        and "semi_nnunet preprocess -d 77" in output
    )
    record = read_json(target / "distil.json")
    selected, labelled = set(record["uncertainty"]), list_cases(raw / "imagesTr")
    assert len(selected) == 2 and selected < list_cases(raw / "imagesUn")
    assert [model_record["model"] for model_record in record["models"]] == [
        model.name for model in pool.models
    ]
    assert list_cases(target / "imagesTr") == list_cases(target / "labelsTr") == labelled | selected
    assert list_cases(target / "imagesUn") == list_cases(raw / "imagesUn") - selected
    assert read_json(target / "dataset.json")["labels"]["ignore"] == 4
    for case in labelled:  # what people drew stays as it is
        name = f"{case}.nii.gz"
        assert (target / "labelsTr" / name).read_bytes() == (raw / "labelsTr" / name).read_bytes()
    for case in selected:
        name = f"{case}_0000.nii.gz"
        assert (target / "imagesTr" / name).read_bytes() == (raw / "imagesUn" / name).read_bytes()
        label = sitk.ReadImage(str(target / "labelsTr" / f"{case}.nii.gz"))
        assert label.GetSize() == sitk.ReadImage(str(target / "imagesTr" / name)).GetSize()
        assert set(np.unique(sitk.GetArrayFromImage(label))) <= {0, 1, 2, 3, 4}
    preprocessed = Path(os.environ["nnUNet_preprocessed"]) / target.name
    folds = read_json(preprocessed / "splits_final.json")
    assert len(folds) == 5
    assert read_pseudo_labelled_cases(preprocessed) == selected
    assert sorted(case for fold in folds for case in fold["val"]) == sorted(labelled)
    for fold in folds:
        assert selected <= set(fold["train"]) and not set(fold["train"]) & set(fold["val"])
    verify_dataset_integrity(str(target), num_processes=1)  # stock nnU-Net takes it
    times = {path: path.stat().st_mtime_ns for path in target.rglob("*")}
    assert main(words) == 0
    assert {path: path.stat().st_mtime_ns for path in target.rglob("*")} == times
    assert main([*words, "--max-uncertainty", "0.9"]) == 2
    assert "not made by this command" in capfd.readouterr().err
    moved = raw.parent / "imagesUn_elsewhere"
    shutil.copytree(raw / "imagesUn", moved)
    record_file = target / "distil.json"
    write_json(record_file, {**read_json(record_file), "images": str(moved)})
    assert main(words) == 0  # as if the raw data had been moved since
    for test in [next((raw / "labelsTs").iterdir()), raw / "imagesUn/new_0000.nii.gz"]:
        before = test.read_bytes() if test.exists() else None
        source = raw / "labelsTr" if before else raw / "imagesUn"
        shutil.copy(next(source.iterdir()), test)
        assert main(words) == 2
        assert "from the present data" in capfd.readouterr().err
        test.write_bytes(before) if before else test.unlink()
    label = next((raw / "labelsTr").iterdir())
    corrected = sitk.ReadImage(str(label))
    corrected[0, 0, 0] = 1 - corrected[0, 0, 0]
    sitk.WriteImage(corrected, str(label))
    assert main(words) == 2
    assert "from the present data" in capfd.readouterr().err


def test_partial_labels_are_completed_and_validate_no_fold(raw, pool, capfd):
    labelled = sorted(list_cases(raw / "imagesTr"))
    partial_cases = labelled[:2]
    words = distil_words(raw, pool, "--complete")
    assert main(words) == 2
    assert "--complete" in capfd.readouterr().err
    path = raw / "dataset.json"
    annotated = {case: ["large", "pair"] for case in partial_cases}
    write_json(path, {**read_json(path), "annotated": annotated})
    for case in partial_cases:  # whoever draws no small organ leaves background there
        file = raw / "labelsTr" / f"{case}.nii.gz"
        label = sitk.ReadImage(str(file))
        sitk.WriteImage(label * sitk.Cast(label != 3, label.GetPixelID()), str(file))
    assert main(words) == 0
    assert "3 labelled and 6 pseudo-labelled cases" in capfd.readouterr().out
    target = next(raw.parent.glob("Dataset077_*"))
    assert "annotated" not in read_json(target / "dataset.json")
    for case in labelled:
        name = f"labelsTr/{case}.nii.gz"
        old, new = (
            sitk.GetArrayFromImage(sitk.ReadImage(str(folder / name))) for folder in (raw, target)
        )
        for value in (1, 2):
            assert np.array_equal(new == value, old == value)
        if case not in partial_cases:
            assert np.array_equal(new, old)
    preprocessed = Path(os.environ["nnUNet_preprocessed"]) / target.name
    assert {*partial_cases} < read_pseudo_labelled_cases(preprocessed)
    folds = read_json(preprocessed / "splits_final.json")
    validated = {case for fold in folds for case in fold["val"]}
    assert validated == ({*labelled} - {*partial_cases} if folds else set())
    assert all({*partial_cases} <= {*fold["train"]} for fold in folds)


def test_bad_images_are_in_no_training(raw, pool, capfd):
    test = next((raw / "imagesTs").iterdir())
    shutil.copy(test, raw / "imagesUn" / "leak_0000.nii.gz")
    assert main(distil_words(raw, pool, "--skip-bad")) == 0
    target = next(raw.parent.glob("Dataset077_*"))
    assert len(list_cases(target / "labelsTr")) == 9
    assert not list(target.rglob("leak*"))


def test_cases_skipped_by_preprocess_are_in_no_training(raw, pool, capfd):
    outlier = sorted(list_cases(raw / "imagesUn"))[1]
    preprocessed = Path(os.environ["nnUNet_preprocessed"]) / raw.name
    preprocessed.mkdir(exist_ok=True)
    write_json(preprocessed / "semi_skipped.json", {outlier: ["Its spacing is of another world."]})
    assert main(distil_words(raw, pool, "--keep", "0.5")) == 0
    assert "left out 1" in capfd.readouterr().out
    target = next(raw.parent.glob("Dataset077_*"))
    assert len(list_cases(target / "labelsTr")) == 7  # of 5, and half of what is left
    assert not list(target.rglob(f"{outlier}*"))


def test_with_all_cases_selected_stock_nnunet_can_continue(raw, pool, capfd):
    assert main(distil_words(raw, pool, "--symlink")) == 0
    target = next(raw.parent.glob("Dataset077_*"))
    assert "semi_nnunet preprocess -d 77" in capfd.readouterr().out
    assert not (target / "imagesUn").exists() and len(list_cases(target / "imagesTr")) == 9
    assert "ignore" not in read_json(target / "dataset.json")["labels"]
    assert all(path.is_symlink() for path in (target / "imagesTr").iterdir())


def test_an_unlabelled_image_that_is_a_test_image_is_refused(raw, pool, capfd):
    test = next((raw / "imagesTs").iterdir())
    shutil.copy(test, raw / "imagesUn" / "leak_0000.nii.gz")
    assert main(distil_words(raw, pool)) == 2
    assert "test case" in capfd.readouterr().err


def test_models_of_another_data_set_are_refused(raw, pool, capfd):
    description = read_json(raw / "dataset.json")
    write_json(raw / "dataset.json", {**description, "labels": {"background": 0, "one": 1}})
    assert main(distil_words(raw, pool)) == 2
    assert f"labels of {raw.name}" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("options", "wheres"),
    [
        ({}, []),
        ({"keep": [0.5, 2, 1], "rounds": 3, "target": "T"}, []),
        ({"rounds": 2, "folds": ["0"], "seeds": 2, "dry_run": True},
         ["--rounds", "--target-folds", "--seeds", "--dry-run"]),
        ({"target": "T", "rounds": 0, "seeds": 0, "jobs": 0}, ["--rounds", "--seeds", "--jobs"]),
        ({"keep": [0.0]}, ["--keep"]), ({"keep": [0.5, 1]}, ["--keep"]),
        ({"score": "change"}, ["--score change"]),
        ({"score": "change", "target": "T", "rounds": 2}, []),  # with the one before
        ({"score": "disagreement"}, ["--score disagreement"]),
        ({"score": "disagreement", "target": "T", "rounds": 2}, ["--score disagreement"] * 2),
    ],
)  # fmt: skip
def test_every_wrong_option_is_reported(options, wheres):
    assert [
        problem.where for problem in find_option_problems(7, ["model"], Distillation(**options))
    ] == wheres


@pytest.mark.parametrize(("new_id", "rounds", "fits"), [
    (1, 1, True), (999, 1, True), (0, 1, False), (1000, 1, False), (998, 2, True), (999, 2, False),
])  # fmt: skip
def test_every_round_has_a_number_that_nnunet_takes(new_id, rounds, fits):
    options = Distillation(target="T", rounds=rounds)
    messages = [problem.what for problem in find_option_problems(new_id, ["model"], options)]
    assert len(messages) == (0 if fits else 1)
    assert fits or f"{new_id} to {new_id + rounds - 1}" in messages[0]


def test_all_mistakes_are_reported_together(capsys):
    mistakes = ["--keep", "0", "--confidence", "2", "--seeds", "2"]
    assert main(["pseudo-dataset", "-d", "77", "--new-id", "2000", "-m", "nothing", *mistakes]) == 2
    errors = capsys.readouterr().err
    for message in (
        "--keep:", "--confidence:", "--seeds:", "got 2000", "the number 77", "-m: no trained model",
    ):  # fmt: skip
        assert message in errors


def test_the_next_commands_can_be_typed_and_train_the_new_data_set(monkeypatch):
    monkeypatch.setattr("semi_nnunet.workflows.next_step.detect_device", lambda: "cpu")
    prepare, train = list_next_commands(Path("raw/Dataset077_New"), None, ["2d"], ["0", "1"])
    parsed = parse_command(prepare)
    assert (parsed.dataset, parsed.plans, parsed.configurations) == ("77", None, None)
    assert train == ("nnUNetv2_train", "77", "2d", "0", "-device", "cpu")
    stages = ["3d_lowres", "3d_cascade_fullres"]
    prepare, train = list_next_commands(Path("raw/Dataset077_New"), "small", stages, ["0", "1"])
    parsed = parse_command(prepare)
    assert (parsed.plans, parsed.configurations) == ("small", stages)
    parsed = parse_command(train)
    assert (parsed.dataset, parsed.plans, parsed.folds) == ("77", "small", ["0", "1"])
    assert parsed.configurations == stages


def test_a_target_is_trained_as_its_first_teacher_by_default(pool, tmp_path):
    request = LabellingRequest(pool.images, pool.out, tuple(pool.names))
    write_json(tmp_path / "dataset.json", {"numTraining": 3, "file_ending": ".nii.gz"})
    split, plans = Folders(tmp_path, tmp_path, tmp_path), {"nnUNetPlans": pool.models[0].plans}
    target = make_target("SemiBaselineTrainer", split, request, plans, Distillation(seeds=2))
    assert (target.plans, target.configurations, target.seeds) == ("nnUNetPlans", ("2d",), 2)
    assert target.folds == ("0", "1", "2")
    options = Distillation(
        folds=["all"], target_configuration="3d_fullres", target_plans="nnUNetPlans"
    )
    other = make_target("SemiBaselineTrainer", split, request, plans, options)
    assert (other.configurations, other.folds) == (("3d_fullres",), ("all",))


def test_folders_of_earlier_labels_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    choice = Distillation(keep=(0.5, 1), score="change", before=["first"]).choice
    assert (choice.keep, choice.before) == (0.5, (str(tmp_path / "first"),))
