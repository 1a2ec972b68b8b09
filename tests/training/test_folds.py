"""Folds of whole patients, made once and checked before use."""

from __future__ import annotations

import json

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
        ({"train": [], "val": []}, "must be a list of folds"),
        ([["a", "b"]], "fold 0: must be like"),
        ([{"train": ["a"]}], "fold 0: must be like"),
        ([{"train": "a", "val": "b"}], "fold 0: must be like"),
        ([{"train": ["OTHERS"], "val": []}], "has no validation case"),
        ([{"train": [], "val": ["FIRST"]}], "has no training case"),
        ([{"train": ["OTHERS", "FIRST"], "val": ["FIRST"]}], "trains and validates on the same"),
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
