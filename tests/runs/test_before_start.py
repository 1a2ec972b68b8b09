"""Problems of a cross-validation are reported before its first job."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from semi_nnunet.preprocessing.manifest import Manifest, ManifestEntry
from semi_nnunet.raw.folds import case_as_patient
from semi_nnunet.raw.layout import PSEUDO_LABELLED_FILE
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json, write_json
from semi_nnunet.workflows import before_start
from semi_nnunet.workflows.crossval import make_jobs
from tests.runs.jobs import OURS, STAGES, TRAINERS, fake_job


def test_test_cases_without_labels_are_named_before_training(folders, tmp_path):
    raw = tmp_path / "raw"
    for name in ("imagesTs/a_0000", "imagesTs/b_0000", "labelsTs/a"):
        (raw / f"{name}.nii.gz").parent.mkdir(parents=True, exist_ok=True)
        (raw / f"{name}.nii.gz").write_text("x")
    other = replace(folders, raw=raw)
    with pytest.raises(UserError, match=r"labelsTs.*no labels of 1 case of imagesTs: b"):
        make_jobs(other, "tiny", ["2d"], TRAINERS, ["0"], 1)
    (raw / "labelsTs" / "a.nii.gz").rename(raw / "labelsTs" / ".DS_Store")
    assert other.test_labels is None  # what a file manager leaves is no label
    assert make_jobs(other, "tiny", ["2d"], TRAINERS, ["0"], 1)


def test_trainings_that_saw_validation_patients_are_refused(folders, tmp_path):
    """Nor does it teach: it has seen what its pupil validates on."""
    copy = Path(
        shutil.copytree(folders.preprocessed, tmp_path / "copy" / folders.preprocessed.name)
    )
    copied = replace(folders, preprocessed=copy, results=tmp_path / "results" / copy.name)
    a, b, *rest = sorted(path.name[:-7] for path in (copy / "gt_segmentations").iterdir())
    write_json(copy / "splits_final.json", [{"train": [a, *rest], "val": [b]}])
    (teacher,) = make_jobs(copied, "tiny", ["2d"], ["SemiMeanTeacherTrainer"], ["0"], 1)
    teacher.folder.mkdir(parents=True)
    teacher.checkpoint.write_text("x")
    pool = teacher.unlabelled_cases(case_as_patient)
    for labelled, unlabelled, refused in (
        ([a], pool, False),
        ([a, b], pool, True),
        ([a], [b], True),
    ):
        record = {"cases": {"labelled": labelled, "unlabelled": unlabelled}}
        write_json(teacher.folder / "semi_settings.json", record)
        for trainer in ("SemiMeanTeacherTrainer", "SemiDistillationTrainer"):
            if refused:
                with pytest.raises(UserError, match=f"SemiMeanTeacher.* for validation: {b}"):
                    make_jobs(copied, "tiny", ["2d"], [trainer], ["0"], 1)
            else:
                assert make_jobs(copied, "tiny", ["2d"], [trainer], ["0"], 1)
        assert make_jobs(copied, "tiny", ["2d"], ["SemiDistillationTrainer"], ["all"], 1)


def test_steps_that_have_nothing_to_begin_with_are_refused(folders):
    for steps in (["predict"], ["evaluate"], ["predict", "evaluate"]):
        with pytest.raises(
            UserError, match=r"none of the jobs is trained\. Fix: add the stage train"
        ):
            make_jobs(folders, "tiny", ["2d"], TRAINERS, ["0"], 1, steps=steps)
    assert not [*folders.results.glob("*__*/fold_*")]


def test_a_second_stage_without_the_first_is_refused(cascade):
    with pytest.raises(UserError, match=r"-c 3d_lowres 3d_cascade_fullres -f all") as caught:
        make_jobs(cascade, "tiny", STAGES[1:], TRAINERS, ["all"], 2)
    assert str(caught.value).count("needs 3d_lowres of fold all") == 2
    with pytest.raises(UserError, match="needs 3d_lowres of fold 0, 1, 2, 3, 4 first"):
        make_jobs(cascade, "tiny", STAGES, TRAINERS, ["0"], 1)


def test_a_stock_first_stage_leaves_pseudo_labelled_cases_out(cascade):
    pseudo = cascade.preprocessed / PSEUDO_LABELLED_FILE
    write_json(pseudo, ["phantom_0004"])
    try:
        with pytest.raises(UserError, match="not 1 pseudo-labelled"):
            make_jobs(cascade, "tiny", STAGES, ["nnUNetTrainer_1epoch"], [*"0123"], 1)
        for trainer, folds in (("nnUNetTrainer_1epoch", ["all"]), (TRAINERS[0], [*"0123"])):
            assert make_jobs(cascade, "tiny", STAGES, [trainer], folds, 1)
    finally:
        pseudo.unlink()
        (cascade.preprocessed / "splits_final.json").unlink()  # four folds, of the other cases


def test_fold_all_and_others_would_overwrite_each_other(cascade):
    with pytest.raises(UserError, match=r"folds 0 1 2 3 4 and 'all' of 3d_lowres would overwrite"):
        make_jobs(cascade, "tiny", STAGES, TRAINERS, [*"01234", "all"], 1)
    trained = cascade.results / "SemiBaselineTrainer__tiny__3d_lowres" / "fold_all"
    trained.mkdir(parents=True)
    (trained / "checkpoint_final.pth").write_text("x")
    with pytest.raises(UserError, match=r"SemiBaselineTrainer .* seen a case"):
        make_jobs(cascade, "tiny", STAGES, TRAINERS, [*"01234"], 1)


def test_measuring_test_cases_that_are_not_predicted_is_refused(empty):
    for name in ("imagesTs/a_0000.nii.gz", "labelsTs/a.nii.gz"):
        (empty.raw / name).parent.mkdir()
        (empty.raw / name).write_text("x")
    jobs = [fake_job(empty, OURS)]
    (problem,) = before_start.find_stage_option_problems(jobs, ["train", "evaluate"])
    assert "--stages evaluate" in str(problem) and str(empty.test_labels) in str(problem)
    assert (
        list(before_start.find_stage_option_problems(jobs, ["train", "predict", "evaluate"])) == []
    )
    assert list(before_start.find_stage_option_problems(jobs, ["train"])) == []
    (jobs[0].test).mkdir(parents=True)
    (jobs[0].test / "a.nii.gz").write_text("x")
    assert list(before_start.find_stage_option_problems(jobs, ["train", "evaluate"])) == []


def test_a_patient_rule_that_changed_after_preprocessing_is_a_problem(empty):
    assert list(before_start.find_description_changes(empty)) == []
    content = read_json(empty.preprocessed / "dataset.json")
    for raw, preprocessed in (("p[0-9]", None), (None, "p[0-9]"), ("a", "b")):
        for folder, patient in ((empty.raw, raw), (empty.preprocessed, preprocessed)):
            changed = {} if patient is None else {"patient": patient}
            write_json(folder / "dataset.json", {**content, **changed})
        (problem,) = before_start.find_description_changes(empty)
        assert problem.where == str(empty.raw / "dataset.json")
        new, old = ("absent" if rule is None else repr(rule) for rule in (raw, preprocessed))
        assert f"is {new}" in problem.what and problem.what.endswith(old)
        assert "semi_nnunet preprocess -d Dataset500" in problem.fix
    (empty.raw / "dataset.json").unlink()  # only results and preprocessed data were copied
    assert list(before_start.find_description_changes(empty)) == []


def test_annotated_classes_that_changed_after_preprocessing_are_a_problem(empty):
    content = read_json(empty.preprocessed / "dataset.json")
    write_json(empty.raw / "dataset.json", {**content, "annotated": {"a": ["liver"]}})
    (problem,) = before_start.find_description_changes(empty)
    assert "'annotated' has changed" in problem.what
    assert "semi_nnunet preprocess -d Dataset500" in problem.fix
    (empty.raw / "dataset.json").unlink()
    assert list(before_start.find_description_changes(empty)) == []


def test_trainers_that_ignore_partial_labels_cause_a_warning(empty, capsys):
    names, content = ["nnUNetTrainer", OURS], read_json(empty.preprocessed / "dataset.json")
    before_start.warn_about_partial_labels(empty, names)
    assert capsys.readouterr().err == ""
    write_json(empty.preprocessed / "dataset.json", {**content, "annotated": {"a": ["liver"]}})
    before_start.warn_about_partial_labels(empty, names)
    output = capsys.readouterr().err
    assert "WARNING: nnUNetTrainer" in output and OURS not in output
    before_start.warn_about_partial_labels(empty, [OURS])
    assert capsys.readouterr().err == ""


def test_data_that_are_not_preprocessed_are_named_with_the_command(folders):
    def problems(plans, trainers):
        return list(before_start.find_data_problems(folders, plans, "tiny", ["2d"], trainers))

    plans = read_json(folders.preprocessed / "tiny.json")
    assert problems(plans, [*TRAINERS, "nnUNetTrainer"]) == []
    plans["configurations"]["2d"]["data_identifier"] = "nowhere"
    (problem,) = problems(plans, TRAINERS)
    assert problem.where == str(folders.preprocessed / "nowhere")
    assert problem.fix == f"semi_nnunet preprocess -d {folders.preprocessed.name} -p tiny -c 2d"


@pytest.mark.parametrize(
    ("key", "value"),
    [("conv_op", "nope"), ("n_stages", 1), ("strides", [[1, 1]]), ("n_conv_per_stage", [2])],
)
def test_a_network_that_cannot_be_built_is_named(folders, key, value):
    plans = read_json(folders.preprocessed / "tiny.json")
    plans["configurations"]["2d"]["architecture"]["arch_kwargs"][key] = value
    (problem,) = before_start.find_data_problems(folders, plans, "tiny", ["2d"], TRAINERS)
    assert "tiny.json" in problem.where and "architecture" in problem.fix


def test_only_a_trainer_that_learns_from_unlabelled_images_needs_some(folders, tmp_path):
    plans = read_json(folders.preprocessed / "tiny.json")
    identifier = plans["configurations"]["2d"]["data_identifier"]
    (tmp_path / "alone" / identifier).mkdir(parents=True)
    alone = replace(folders, preprocessed=tmp_path / "alone")

    def problems(*trainers):
        return list(before_start.find_data_problems(alone, plans, "tiny", ["2d"], trainers))

    assert problems("SemiBaselineTrainer", "nnUNetTrainer") == []
    (problem,) = problems(*TRAINERS)
    assert OURS in problem.what and "unlabelled images" in problem.what
    assert "imagesUn" in problem.fix
    image = tmp_path / "alone" / identifier / "a.b2nd"
    image.write_text("image")
    for ignored in (0.0, 0.5):  # ignored voxels are unlabelled
        entry = ManifestEntry.of("a", "-" * 3, [image], {"ignored": ignored})
        Manifest(image.parent).add(entry)
        assert bool(problems(*TRAINERS)) == (not ignored)


def test_a_stock_first_stage_needs_the_data_of_the_second(cascade, tmp_path):
    plans = read_json(cascade.preprocessed / "tiny.json")
    (tmp_path / "alone" / plans["configurations"]["3d_lowres"]["data_identifier"]).mkdir(
        parents=True
    )
    alone = replace(cascade, preprocessed=tmp_path / "alone")

    def problems(*trainers):
        return list(before_start.find_data_problems(alone, plans, "tiny", STAGES[:1], trainers))

    assert problems("SemiBaselineTrainer") == []  # ours leaves the predictions out
    (problem,) = problems("nnUNetTrainer")
    assert "predicts for 3d_cascade_fullres" in problem.what
    assert "-p tiny -c 3d_cascade_fullres" in problem.fix


def test_many_test_cases_without_labels_are_named_in_part(empty):
    for folder, ending in (("imagesTs", "_0000.nii.gz"), ("labelsTs", ".nii.gz")):
        (empty.raw / folder).mkdir()
        for number in range(9 if folder == "imagesTs" else 1):
            (empty.raw / folder / f"case{number}{ending}").touch()
    (problem,) = before_start.find_test_label_problems(empty)
    assert problem.where == str(empty.test_labels)
    assert "no labels of 8 cases" in problem.what and problem.what.endswith("case5 and 3 more")


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_test_labels_that_lie_elsewhere_are_named_before_a_training(empty, ending: str) -> None:
    for root in (empty.raw, empty.preprocessed):
        write_json(root / "dataset.json", {"file_ending": ending})
    for case, spacing in (("fits", 1.0), ("thick", 1.25)):
        for folder, name, size in (("imagesTs", f"{case}_0000", 1.0), ("labelsTs", case, spacing)):
            (empty.raw / folder).mkdir(exist_ok=True)
            image = sitk.GetImageFromArray(np.zeros((2, 3, 4), np.uint8))
            image.SetSpacing((size, size, size))
            sitk.WriteImage(image, empty.raw / folder / f"{name}{ending}")
    (problem,) = before_start.find_test_label_problems(empty)
    assert problem.where == f"labelsTs/thick{ending}"
    assert f"imagesTs/thick_0000{ending}" in problem.what and "1.25" in problem.what
    for reader in ("NibabelIOWithReorient", "SimpleITKIOWithReorient"):  # may turn both
        description = {"file_ending": ending, "overwrite_image_reader_writer": reader}
        write_json(empty.raw / "dataset.json", description)
        assert not list(before_start.find_test_label_problems(empty))
