"""Folds of whole patients, made once and checked before use."""

from __future__ import annotations

import pytest

from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import write_json


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


def test_folds_that_tear_patients_are_refused(make_trainer, tmp_path):
    trainer = make_trainer("SemiBaselineTrainer", start=False)
    cases = trainer.labelled_identifiers()
    trainer.preprocessed_dataset_folder_base, trainer.patient_of = str(tmp_path), lambda _: "Ann"
    with pytest.raises(UserError, match=r"5 labelled cases of 1\. Fix: train fold 'all'"):
        trainer.do_split()
    write_json(tmp_path / "splits_final.json", [{"train": cases[1:], "val": cases[:1]}])
    with pytest.raises(UserError, match=r"same patients: Ann\. Fix: delete that file"):
        trainer.do_split()


def test_one_labelled_case_can_only_be_trained_on_all(make_trainer, tmp_path):
    trainer = make_trainer("SemiBaselineTrainer", start=False)
    cases = trainer.labelled_identifiers()[:1]
    trainer.labelled_identifiers = lambda: cases
    trainer.preprocessed_dataset_folder_base = str(tmp_path)
    with pytest.raises(UserError, match="Fix: train fold 'all'"):
        trainer.do_split()


def test_a_fold_that_the_split_does_not_have_is_not_made_up(make_trainer, tmp_path):
    """nnU-Net would split at random; where cases are pseudo-labelled, it would validate on them."""
    trainer = make_trainer("SemiBaselineTrainer", start=False)
    cases = trainer.labelled_identifiers()
    trainer.preprocessed_dataset_folder_base = str(tmp_path)
    for splits, fix in ([], "train fold 'all'"), ([{"train": cases, "val": cases}], "0 to 0"):
        write_json(tmp_path / "splits_final.json", splits)
        trainer.fold = len(splits)
        with pytest.raises(UserError, match=f"has {len(splits)} folds.*{fix}"):
            trainer.do_split()
