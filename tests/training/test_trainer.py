"""Trainers as a whole: they are repeatable, and take their settings from the plans."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import pytest
import torch

from semi_nnunet.util.errors import UserError
from tests.trainers import same_weights, weights_of


def test_same_seed_gives_the_same_training_and_another_seed_another(make_trainer):
    weights = []
    for seed in (0, 0, 1):
        trainer = make_trainer("SemiMeanTeacherTrainer", seed=seed)
        trainer.train_step(next(trainer.dataloader_train))
        weights.append(weights_of(trainer.bare_network))
    assert same_weights(weights[0], weights[1]) and not same_weights(weights[0], weights[2])


def test_an_unpreprocessed_configuration_is_reported_with_the_command(make_trainer, tmp_path):
    trainer = make_trainer("SemiBaselineTrainer", start=False)
    trainer.preprocessed_dataset_folder = str(tmp_path / "nowhere")
    with pytest.raises(UserError, match="2d") as error:
        trainer.do_split()
    assert "semi_nnunet preprocess -d" in error.value.fix


def test_settings_keep_the_reasons_of_the_rules_after_planning(prepared_dataset):
    from semi_nnunet.methods.mean_teacher import MeanTeacherSettings, SemiMeanTeacherTrainer
    from semi_nnunet.planning.plan import plan_semi

    dataset = prepared_dataset("labels", 1)
    trainers = {"SemiMeanTeacherTrainer": MeanTeacherSettings}
    changes = {"epochs": 7}
    plans = dict(dataset.plans)
    plans["semi"], _ = plan_semi(
        plans, dataset.dataset_json, Path(dataset.preprocessed), trainers, changes
    )
    plans["semi_planned"] = {"given": changes, "semi": copy.deepcopy(plans["semi"])}
    plans["semi"]["2d"]["ramp_up_steps"] = 3  # edited by hand
    trainer = SemiMeanTeacherTrainer(plans, "2d", 0, dataset.dataset_json, torch.device("cpu"))
    reasons = trainer.resolved.reasons
    assert reasons["epochs"] == "given in plans['semi']"
    assert reasons["ramp_up_steps"] == "given in plans['semi']['2d']"
    assert reasons["labelled_batch_size"].startswith("batch size")
    assert reasons["ema_decay"].startswith("averages about")


def test_an_unknown_setting_is_rejected_with_the_nearest_one(make_trainer):
    with pytest.raises(UserError, match="'ema_decay'"):
        make_trainer("SemiMeanTeacherTrainer", start=False, ema_deccay=0.9)


def test_the_plans_of_the_caller_do_not_change(prepared_dataset):
    from semi_nnunet.methods.supervised import SemiBaselineTrainer

    dataset = prepared_dataset("labels", 1)
    plans = {**dataset.plans, "continue_training": True}
    before = json.dumps(plans, sort_keys=True)
    SemiBaselineTrainer(plans, "2d", 0, dataset.dataset_json, torch.device("cpu"))
    assert json.dumps(plans, sort_keys=True) == before


def test_a_misspelt_trainer_section_is_rejected_but_not_one_of_another_package(prepared_dataset):
    from semi_nnunet.methods.mean_teacher import SemiMeanTeacherTrainer

    dataset = prepared_dataset("labels", 1)
    arguments = ("2d", 0, dataset.dataset_json, torch.device("cpu"))
    plans = {**dataset.plans, "semi": {"SemiMeanTeecherTrainer": {}}}
    with pytest.raises(UserError, match="'SemiMeanTeacherTrainer'"):
        SemiMeanTeacherTrainer(plans, *arguments)
    SemiMeanTeacherTrainer({**plans, "semi": {"SomebodyElsesTrainer": {"x": 1}}}, *arguments)


@pytest.mark.parametrize(
    ("keep", "says"), [(0.5, "truncated"), (0, "(0 bytes)"), (None, "is absent")]
)
def test_half_a_validation_label_is_named_before_the_training(
    make_trainer, tmp_path, monkeypatch, keep, says
):
    trainer = make_trainer("SemiBaselineTrainer", start=False)
    source = Path(trainer.preprocessed_dataset_folder_base)
    copy = Path(shutil.copytree(source, tmp_path / "copy" / source.name))
    monkeypatch.setattr(trainer, "preprocessed_dataset_folder_base", str(copy))
    trainer.initialize()
    case = trainer.do_split()[1][0]
    label = copy / "gt_segmentations" / f"{case}.nii.gz"
    content = label.read_bytes()
    label.unlink()
    if keep is not None:
        label.write_bytes(content[: int(keep * len(content))])
    for start in (trainer.on_train_start, trainer.perform_actual_validation):
        with pytest.raises(UserError) as refused:
            start()
        (problem,) = refused.value.problems
        assert problem.where == str(label) and says in problem.what
        assert problem.fix.startswith("semi_nnunet preprocess -d")
    assert not (Path(trainer.output_folder) / "validation").exists()


@pytest.mark.parametrize("ending", [".b2nd", "_seg.b2nd", ".pkl"])
def test_a_cut_preprocessed_file_is_named_with_the_command(make_trainer, tmp_path, ending):
    trainer = make_trainer("SemiBaselineTrainer", start=False)
    source = Path(trainer.preprocessed_dataset_folder_base)
    copy = Path(shutil.copytree(source, tmp_path / "copy" / source.name))
    trainer.preprocessed_dataset_folder_base = str(copy)
    trainer.preprocessed_dataset_folder = str(copy / "nnUNetPlans_2d")
    trainer.initialize()
    case = trainer.do_split()[0][0]
    file = copy / "nnUNetPlans_2d" / f"{case}{ending}"
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(UserError, match=f"1 case in .* missing or cut: {case}") as refused:
        trainer.on_train_start()
    assert refused.value.fix.startswith("semi_nnunet preprocess -d")
