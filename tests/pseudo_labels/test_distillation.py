"""Distilled data sets: the surest cases become training cases, none of them in a validation."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

from semi_nnunet.cli.main import build_parser, main
from semi_nnunet.data.sampling import pseudo_labelled_cases
from semi_nnunet.pseudo_labels.distillation import (
    Distillation,
    option_problems,
    options_of,
    target_of,
    what_follows,
)
from semi_nnunet.pseudo_labels.pool import Request
from semi_nnunet.runs.folders import Folders
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


def test_what_labels_leave_out_is_completed_and_validates_nothing(raw, pool, capfd):
    labelled = sorted(cases(raw / "imagesTr"))
    partly = labelled[:2]
    words = distil(raw, pool, "--complete")
    assert main(words) == 2
    assert "needs cases that do not annotate every class" in capfd.readouterr().err
    path = raw / "dataset.json"
    told = {case: ["large", "pair"] for case in partly}
    write_json(path, {**read_json(path), "annotated": told})
    for case in partly:  # whoever draws no small organ leaves background there
        file = raw / "labelsTr" / f"{case}.nii.gz"
        label = sitk.ReadImage(str(file))
        sitk.WriteImage(label * sitk.Cast(label != 3, label.GetPixelID()), str(file))
    assert main(words) == 0
    assert "3 labelled and 6 pseudo-labelled cases" in capfd.readouterr().out
    target = next(raw.parent.glob("Dataset077_*"))
    assert "annotated" not in read_json(target / "dataset.json")
    for case in labelled:
        name = f"labelsTr/{case}.nii.gz"
        own, new = (
            sitk.GetArrayFromImage(sitk.ReadImage(str(folder / name))) for folder in (raw, target)
        )
        for value in (1, 2):
            assert np.array_equal(new == value, own == value)
        if case not in partly:
            assert np.array_equal(new, own)
    preprocessed = Path(os.environ["nnUNet_preprocessed"]) / target.name
    assert {*partly} < pseudo_labelled_cases(preprocessed)
    folds = read_json(preprocessed / "splits_final.json")
    validated = {case for fold in folds for case in fold["val"]}
    assert validated == ({*labelled} - {*partly} if folds else set())
    assert all({*partly} <= {*fold["train"]} for fold in folds)


def test_what_is_set_aside_is_in_no_training(raw, pool, capfd):
    test = next((raw / "imagesTs").iterdir())
    shutil.copy(test, raw / "imagesUn" / "leak_0000.nii.gz")
    assert main(distil(raw, pool, "--skip-bad")) == 0
    target = next(raw.parent.glob("Dataset077_*"))
    assert len(cases(target / "labelsTr")) == 9
    assert not list(target.rglob("leak*"))


def test_what_preprocess_set_aside_is_in_no_training(raw, pool, capfd):
    outlier = sorted(cases(raw / "imagesUn"))[1]
    preprocessed = Path(os.environ["nnUNet_preprocessed"]) / raw.name
    preprocessed.mkdir(exist_ok=True)
    write_json(preprocessed / "semi_skipped.json", {outlier: ["Its spacing is of another world."]})
    assert main(distil(raw, pool, "--keep", "0.5")) == 0
    assert "left out 1 unlabelled cases that preprocess set aside" in capfd.readouterr().out
    target = next(raw.parent.glob("Dataset077_*"))
    assert len(cases(target / "labelsTr")) == 7  # of 5, and half of what is left
    assert not list(target.rglob(f"{outlier}*"))


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


@pytest.mark.parametrize(
    ("options", "wheres"),
    [
        ({}, []),
        ({"keep": [0.5, 2, 1], "rounds": 3, "target": "T"}, []),
        ({"rounds": 2, "folds": ["0"], "seeds": 2, "dry_run": True},
         ["--rounds", "-f", "--seeds", "--dry-run"]),
        ({"target": "T", "rounds": 0, "seeds": 0, "jobs": 0}, ["--rounds", "--seeds", "--jobs"]),
        ({"keep": [0.0]}, ["--keep"]), ({"keep": [0.5, 1]}, ["--keep"]),
        ({"score": "change"}, ["--score change"]),
        ({"score": "change", "target": "T", "rounds": 2}, []),  # with the one before
        ({"score": "disagreement"}, ["--score disagreement"]),
        ({"score": "disagreement", "target": "T", "rounds": 2}, ["--score disagreement"] * 2),
    ],
)  # fmt: skip
def test_every_wrong_option_is_named(options, wheres):
    assert [one.where for one in option_problems(7, ["model"], Distillation(**options))] == wheres


@pytest.mark.parametrize(("new_id", "rounds", "fits"), [
    (1, 1, True), (999, 1, True), (0, 1, False), (1000, 1, False), (998, 2, True), (999, 2, False),
])  # fmt: skip
def test_every_round_has_a_number_that_nnunet_takes(new_id, rounds, fits):
    how = Distillation(target="T", rounds=rounds)
    found = [one.what for one in option_problems(new_id, ["model"], how)]
    assert found == ([] if fits else [
        f"a data set has a number from 1 to 999, got {new_id} to {new_id + rounds - 1}"
    ])  # fmt: skip


def test_all_mistakes_are_told_at_once(capsys):
    wrong = ["--keep", "0", "--confidence", "2", "--seeds", "2"]
    assert main(["distil", "-d", "77", "-o", "2000", "-m", "nothing", *wrong]) == 2
    told = capsys.readouterr().err
    for part in (
        "--keep: must be above 0", "--confidence: must be a probability", "--seeds: is of the",
        "a data set has a number from 1 to 999, got 2000", "must have the number 77",
        "-m: no trained model",
    ):  # fmt: skip
        assert part in told


def test_what_follows_can_be_typed_and_trains_the_new_data_set(monkeypatch):
    monkeypatch.setattr("semi_nnunet.runs.next_step.device_here", lambda: "cpu")
    prepare, train = what_follows(Path("raw/Dataset077_New"), None, ["2d"], ["0", "1"])
    parsed = build_parser("preprocess").parse_args([*map(str, prepare[1:])])
    assert (parsed.dataset, parsed.plans, parsed.configurations) == ("77", None, None)
    assert train == ("nnUNetv2_train", "77", "2d", "0", "-device", "cpu")
    stages = ["3d_lowres", "3d_cascade_fullres"]
    prepare, train = what_follows(Path("raw/Dataset077_New"), "small", stages, ["0", "1"])
    parsed = build_parser("preprocess").parse_args([*map(str, prepare[1:])])
    assert (parsed.plans, parsed.configurations) == ("small", stages)
    parsed = build_parser("crossval").parse_args([*map(str, train[1:])])
    assert (parsed.dataset, parsed.plans, parsed.folds) == ("77", "small", ["0", "1"])
    assert parsed.configurations == stages


def test_options_of_all_rounds_are_told_as_they_are_typed():
    how = Distillation(
        views=["flips", "blur"], confidence=0.6, skip_bad=True, symlink=True, device="cpu", jobs=2,
        processes=3,
    )  # fmt: skip
    found = options_of("Dataset007_Seven", how)
    words = ["-d", found.source, "-o", "77", "--base", "model", *found.labelling, *found.device]
    parsed = build_parser("distil").parse_args(["distil", *words])
    for name in ("views", "confidence", "skip_bad", "symlink", "device", "jobs"):
        assert getattr(parsed, name) == getattr(how, name), name
    assert found.processes == 3 and options_of("7", Distillation()).labelling == ()


def test_a_target_is_trained_as_its_first_teacher_unless_told(pool, tmp_path):
    request = Request(pool.images, pool.out, tuple(pool.names))
    write_json(tmp_path / "dataset.json", {"numTraining": 3, "file_ending": ".nii.gz"})
    split, plans = Folders(tmp_path, tmp_path, tmp_path), {"nnUNetPlans": pool.models[0].plans}
    found = target_of("SemiBaselineTrainer", split, request, plans, Distillation(seeds=2))
    assert (found.plans, found.configurations, found.seeds) == ("nnUNetPlans", ("2d",), 2)
    assert found.folds == ("0", "1", "2")
    told = Distillation(
        folds=["all"], target_configuration="3d_fullres", target_plans="nnUNetPlans"
    )
    other = target_of("SemiBaselineTrainer", split, request, plans, told)
    assert (other.configurations, other.folds) == (("3d_fullres",), ("all",))


def test_earlier_labels_are_found_from_everywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    choice = Distillation(keep=(0.5, 1), score="change", before=["first"]).choice
    assert (choice.keep, choice.before) == (0.5, (str(tmp_path / "first"),))
