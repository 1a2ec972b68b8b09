"""Trainers as a whole: repeatable, and settings as the plans give them."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch

from semi_nnunet.util.errors import UserError
from tests.trainers import same_weights, weights_of


def test_same_seed_gives_the_same_training_and_another_seed_another(make_trainer):
    after = []
    for seed in (0, 0, 1):
        trainer = make_trainer("SemiMeanTeacherTrainer", seed=seed)
        trainer.train_step(next(trainer.dataloader_train))
        after.append(weights_of(trainer.bare_network))
    assert same_weights(after[0], after[1]) and not same_weights(after[0], after[2])


def test_a_configuration_that_is_not_preprocessed_is_said_with_the_command(make_trainer, tmp_path):
    trainer = make_trainer("SemiBaselineTrainer", start=False)
    trainer.preprocessed_dataset_folder = str(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"2d is not preprocessed.*semi_nnunet preprocess -d"):
        trainer.do_split()


def test_reasons_are_those_of_the_rules_also_after_planning(prepared_dataset):
    from semi_nnunet.methods.mean_teacher import MeanTeacherSettings, SemiMeanTeacherTrainer
    from semi_nnunet.planning.plan import plan_semi

    dataset = prepared_dataset("labels", 1)
    trainers = {"SemiMeanTeacherTrainer": MeanTeacherSettings}
    given = {"epochs": 7}
    plans = dict(dataset.plans)
    plans["semi"], _ = plan_semi(
        plans, dataset.dataset_json, Path(dataset.preprocessed), trainers, given
    )
    plans["semi_planned"] = {"given": given, "semi": copy.deepcopy(plans["semi"])}
    plans["semi"]["2d"]["ramp_up_steps"] = 3  # edited by hand
    trainer = SemiMeanTeacherTrainer(plans, "2d", 0, dataset.dataset_json, torch.device("cpu"))
    reasons = trainer.resolved.reasons
    assert reasons["epochs"] == "given in plans['semi']"
    assert reasons["ramp_up_steps"] == "given in plans['semi']['2d']"
    assert reasons["labelled_batch_size"] == "batch size of the nnU-Net plan"
    assert reasons["ema_decay"].startswith("averages about the last")


def test_unknown_setting_stops_at_once_and_names_the_nearest(make_trainer):
    with pytest.raises(UserError, match="did you mean 'ema_decay'"):
        make_trainer("SemiMeanTeacherTrainer", start=False, ema_deccay=0.9)


def test_plans_given_by_the_caller_stay_as_they_were(prepared_dataset):
    from semi_nnunet.methods.supervised import SemiBaselineTrainer

    dataset = prepared_dataset("labels", 1)
    plans = {**dataset.plans, "continue_training": True}
    before = json.dumps(plans, sort_keys=True)
    SemiBaselineTrainer(plans, "2d", 0, dataset.dataset_json, torch.device("cpu"))
    assert json.dumps(plans, sort_keys=True) == before


def test_misspelt_trainer_section_is_refused_and_another_packages_left_alone(prepared_dataset):
    from semi_nnunet.methods.mean_teacher import SemiMeanTeacherTrainer

    dataset = prepared_dataset("labels", 1)
    arguments = ("2d", 0, dataset.dataset_json, torch.device("cpu"))
    plans = {**dataset.plans, "semi": {"SemiMeanTeecherTrainer": {}}}
    with pytest.raises(UserError, match="did you mean 'SemiMeanTeacherTrainer'"):
        SemiMeanTeacherTrainer(plans, *arguments)
    SemiMeanTeacherTrainer({**plans, "semi": {"SomebodyElsesTrainer": {"x": 1}}}, *arguments)
