"""Folds of whole patients, and the unlabelled cases that a training sees."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from semi_nnunet.raw.folds import describe_left_out
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import write_json
from tests.trainers import run_epochs


def test_a_fold_excludes_unlabelled_images_of_its_validation_patients(make_trainer, tmp_path):
    trainer = make_trainer("SemiMeanTeacherTrainer", start=False)
    labelled, unlabelled = trainer.labelled_identifiers(), trainer.unlabelled_selection().in_fold
    assert len(labelled) == 5 and len(unlabelled) == 4
    # two labelled patients of two and three cases; the first has an unlabelled image, too
    first = {*labelled[:2], unlabelled[0]}
    trainer.patient_of = lambda case: "A" if case in first else "B" if case in labelled else case
    trainer.preprocessed_dataset_folder_base = str(tmp_path)
    pools = {}
    for trainer.fold in (0, 1):
        training, validation = trainer.do_split()
        assert {tuple(training), tuple(validation)} == {tuple(labelled[:2]), tuple(labelled[2:])}
        pools["A" if labelled[0] in validation else "B"] = trainer.unlabelled_selection().trained_on
        assert trainer.unlabelled_selection().in_fold == trainer.unlabelled_selection().trained_on
    assert pools == {"A": unlabelled[1:], "B": unlabelled}
    trainer.fold = "all"
    assert trainer.unlabelled_selection().trained_on == unlabelled
    trainer.fold, trainer.patient_of = 0, lambda case: "B" if case in labelled[2:] else "A"
    trainer.do_split = lambda: (labelled[2:], labelled[:2])
    with pytest.raises(UserError, match=r"all 4 .* fold 0"):
        trainer.unlabelled_selection()


def test_a_fold_excludes_near_twins_of_its_validation_cases(make_trainer, tmp_path):
    trainer = make_trainer("SemiMeanTeacherTrainer", start=False)
    labelled, unlabelled = trainer.labelled_identifiers(), trainer.unlabelled_selection().in_fold
    trainer.preprocessed_dataset_folder_base = str(tmp_path)
    write_json(tmp_path / "semi_twins.json", {"groups": [[labelled[0], unlabelled[1]]]})
    pools = {}
    for trainer.fold, validation in ((0, labelled[:1]), (1, labelled[1:])):
        trainer.do_split = lambda cases=validation: ([c for c in labelled if c not in cases], cases)
        pools[trainer.fold] = trainer.unlabelled_selection().trained_on
    assert pools == {0: [unlabelled[0], *unlabelled[2:]], 1: unlabelled}


def test_missing_unlabelled_images_are_reported_before_the_first_step(
    make_trainer, monkeypatch, tmp_path
):
    trainer = make_trainer("SemiMeanTeacherTrainer", start=False)
    trainer.pool.folder = tmp_path / "nothing"
    with pytest.raises(UserError, match="unlabelled") as error:
        trainer.on_train_start()
    assert "semi_nnunet preprocess -d Dataset" in error.value.fix


def test_a_pool_that_changed_since_the_checkpoint_is_logged(make_trainer):
    trainer = make_trainer("SemiMeanTeacherTrainer", start=False)
    run_epochs(trainer, 1)
    resumed = make_trainer("SemiMeanTeacherTrainer", start=False)
    pool = resumed.unlabelled_selection().in_fold
    resumed.pool._preprocessed = pool[:-1]
    log = []
    resumed.print_to_log_file = lambda *args, **kwargs: log.append(" ".join(map(str, args)))
    resumed.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_latest.pth"))
    assert any("4 -> 3" in line for line in log)


def test_foreground_is_oversampled_if_few_slices_show_any(phantom):
    from dataclasses import replace

    from semi_nnunet.planning.properties import collect_properties
    from semi_nnunet.settings.rules import unlabelled_foreground_oversampling as rule

    facts = collect_properties(phantom.plans, "2d", phantom.dataset_json, phantom.preprocessed)
    shown = [
        (SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))) > 0).any((1, 2)).mean()
        for path in sorted((phantom.raw / "labelsTr").glob("*.nii.gz"))
    ]
    assert facts.foreground_slices == pytest.approx(np.mean(shown), abs=1e-3)
    assert rule(facts, {})[0] == 0.0  # the patch is the slice
    assert rule(replace(facts, foreground_slices=0.2), {})[0] == 0.33


def test_few_labelled_cases_get_one_fold_each(make_trainer, prepared_dataset, tmp_path):
    trainer = make_trainer("SemiBaselineTrainer", start=False)
    cases = trainer.labelled_identifiers()[:3]
    trainer.labelled_identifiers = lambda: cases
    trainer.preprocessed_dataset_folder_base = str(tmp_path)  # no splits_final.json there
    folds = []
    for fold in range(3):
        trainer.fold = fold
        folds.append(trainer.do_split())
    assert sorted(case for _, validation in folds for case in validation) == cases
    assert all(sorted(training + validation) == cases for training, validation in folds)


def test_folds_that_split_patients_are_rejected(make_trainer, tmp_path):
    trainer = make_trainer("SemiBaselineTrainer", start=False)
    cases = trainer.labelled_identifiers()
    trainer.preprocessed_dataset_folder_base, trainer.patient_of = str(tmp_path), lambda _: "Ann"
    with pytest.raises(UserError, match="5 labelled cases of 1") as error:
        trainer.do_split()
    assert "fold 'all'" in error.value.fix
    write_json(tmp_path / "splits_final.json", [{"train": cases[1:], "val": cases[:1]}])
    with pytest.raises(UserError, match="Ann") as error:
        trainer.do_split()
    assert "delete" in error.value.fix


def test_one_labelled_case_can_only_be_trained_on_all(make_trainer, tmp_path):
    trainer = make_trainer("SemiBaselineTrainer", start=False)
    cases = trainer.labelled_identifiers()[:1]
    trainer.labelled_identifiers = lambda: cases
    trainer.preprocessed_dataset_folder_base = str(tmp_path)
    with pytest.raises(UserError) as error:
        trainer.do_split()
    assert "fold 'all'" in error.value.fix


def test_a_fold_that_the_file_does_not_have_is_rejected(make_trainer, tmp_path):
    """nnU-Net would split at random; where cases are pseudo-labelled, it would validate on them."""
    trainer = make_trainer("SemiBaselineTrainer", start=False)
    cases = trainer.labelled_identifiers()
    trainer.preprocessed_dataset_folder_base = str(tmp_path)
    for splits, fix in ([], "train fold 'all'"), ([{"train": cases, "val": cases}], "0 to 0"):
        write_json(tmp_path / "splits_final.json", splits)
        trainer.fold = len(splits)
        with pytest.raises(UserError, match=f"{len(splits)} folds") as error:
            trainer.do_split()
        assert fix in error.value.fix


@pytest.mark.parametrize(
    ("splits", "says"),
    [
        ({"train": [], "val": []}, "list of folds"),
        ([["a", "b"]], "fold 0: must be like"),
        ([{"train": ["a"]}], "fold 0: must be like"),
        ([{"train": "a", "val": "b"}], "fold 0: must be like"),
        ([{"train": ["OTHERS"], "val": []}], "no validation case"),
        ([{"train": [], "val": ["FIRST"]}], "no training case"),
        ([{"train": ["OTHERS", "FIRST"], "val": ["FIRST"]}], "validates on"),
    ],
)
def test_damaged_splits_are_named_before_the_training(make_trainer, tmp_path, splits, says):
    trainer = make_trainer("SemiBaselineTrainer", start=False)
    first, *others = trainer.labelled_identifiers()
    trainer.preprocessed_dataset_folder_base = str(tmp_path)
    text = json.dumps(splits).replace('"OTHERS"', json.dumps(others)[1:-1])
    (tmp_path / "splits_final.json").write_text(text.replace("FIRST", first))
    with pytest.raises(UserError, match=says) as error:
        trainer.do_split()
    assert "delete" in str(error.value)


def test_labelled_cases_in_no_fold_cause_a_warning(make_trainer, tmp_path):
    """Case names in no fold, as of cases labelled after the split."""
    trainer = make_trainer("SemiBaselineTrainer", start=False)
    *earlier, later = trainer.labelled_identifiers()
    source = Path(trainer.preprocessed_dataset_folder_base)
    copy = Path(shutil.copytree(source, tmp_path / "copy" / source.name))
    trainer.preprocessed_dataset_folder_base = str(copy)
    write_json(copy / "splits_final.json", [{"train": earlier[1:], "val": earlier[:1]}])
    said = []
    trainer.say = lambda *words: said.append(" ".join(map(str, words)))
    trainer.initialize()
    trainer.get_dataloaders()
    (warning,) = (line for line in said if "leaves out" in line)
    assert f"on: {later}." in warning
    write_json(copy / "splits_final.json", [{"train": [*earlier[1:], later], "val": earlier[:1]}])
    assert describe_left_out(copy, [*earlier, later]) == ""
