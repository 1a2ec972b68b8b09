"""A trained model is selected by its folder, or by data set, configuration, trainer and plans."""

from __future__ import annotations

from pathlib import Path

import pytest

from semi_nnunet.deploy.trained import find_model
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import write_json
from semi_nnunet.workflows.selection import name_folds, select_model, select_models

UNIFIED, BASELINE = "SemiUnifiedTrainer__nnUNetPlans__2d", "SemiBaselineTrainer__small__2d"


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The results folder of a data set without trainings."""
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    folder = tmp_path / "Dataset042_X"
    folder.mkdir()
    return folder


def train(results: Path, *models: str, folds: str = "0") -> None:
    for model in models:
        for fold in folds.split():
            (results / model / f"fold_{fold}").mkdir(parents=True)
            (results / model / f"fold_{fold}" / "checkpoint_final.pth").touch()
        _, name, configuration = model.split("__")
        plans = {"configurations": {configuration: {}}, "plans_name": name}
        plans["image_reader_writer"] = "SimpleITKIO"
        write_json(results / model / "plans.json", plans)
        labels = {"background": 0, "organ": 1}
        description = {"labels": labels, "channel_names": {"0": "CT"}, "file_ending": ".nii.gz"}
        write_json(results / model / "dataset.json", description)


def test_the_only_trained_model_is_taken_and_named(results, capsys) -> None:
    train(results, BASELINE)
    for given in ((None, None, None), ("2d", None, "small"), (None, "SemiBaselineTrainer", None)):
        assert select_model(None, "Dataset042_X", *given) == f"Dataset042_X/{BASELINE}"
        assert capsys.readouterr().out == f"model: Dataset042_X/{BASELINE}\n"
    names = ("2d", "SemiBaselineTrainer", "small")
    assert select_model(None, "Dataset042_X", *names) == f"Dataset042_X/{BASELINE}"
    assert not capsys.readouterr().out


def test_a_copy_of_a_fold_is_no_trained_model(results) -> None:
    train(results, BASELINE)
    train(results, UNIFIED, folds="all_old")
    assert select_model(None, "42", None, None, None) == f"Dataset042_X/{BASELINE}"


def test_of_several_models_the_recommended_one_is_taken(results) -> None:
    train(results, UNIFIED, BASELINE, UNIFIED.replace("nnUNetPlans", "nnUNetPlans_cpu"))
    assert select_model(None, "42", None, None, None) == f"Dataset042_X/{UNIFIED}"
    assert select_model(None, "42", None, None, "small") == f"Dataset042_X/{BASELINE}"


@pytest.mark.parametrize(
    ("arguments", "keyword"),
    [
        ((None, None, None, None, None), "no model"),
        (("model", "42", None, None, None), "-m names"),
        ((None, "42", "3d_fullres", None, None), "none matches"),
        ((None, "42", None, None, None), "several match"),
    ],
)
def test_a_selection_that_names_no_model_is_refused(results, arguments, keyword) -> None:
    train(results, UNIFIED, UNIFIED.replace("2d", "3d_lowres"))
    with pytest.raises(UserError, match=keyword):
        select_model(*arguments)


def test_folds_are_part_of_a_models_name(results) -> None:
    train(results, UNIFIED, folds="0 1 2 all")
    model = f"Dataset042_X/{UNIFIED}"
    assert find_model(name_folds(model, None)).folds == ("0", "1", "2")
    assert find_model(name_folds(model, ["0", "2"])).folds == ("0", "2")
    assert find_model(name_folds(model, ["all"])).folds == ("all",)
    with pytest.raises(UserError, match="no trained model"):
        find_model(name_folds(model, ["0", "3"]))


def test_several_models_are_named_and_one_may_be_selected(results) -> None:
    train(results, UNIFIED, BASELINE, folds="0 1")
    selected = select_models((), "42", None, "SemiBaselineTrainer", None, ["0"])
    assert selected == [f"Dataset042_X/{BASELINE}/fold_0"]
    assert select_models(["a", "b"], None, None, None, None, None) == ["a", "b"]
    with pytest.raises(UserError, match="-m names the models already"):
        select_models(["a", "b"], None, None, None, None, ["0"])
