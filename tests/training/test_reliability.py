"""The reliability of a network, and the weight of unlabelled terms that follows from it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from semi_nnunet.core.ramps import ramp
from semi_nnunet.training.reliability import compute_class_reliability, estimate_unseen_reliability
from tests.trainers import run_epochs


def test_a_collapsing_teacher_is_warned_of(make_trainer):
    trainer = make_trainer("SemiMeanTeacherTrainer", start=False, unlabelled_start_steps=0)
    trainer.initialize()
    log = []
    trainer.print_to_log_file = lambda *args, **kwargs: log.append(" ".join(map(str, args)))
    with torch.no_grad():  # the student, which the teacher copies when training starts
        trainer.bare_network.decoder.seg_layers[-1].bias[0] = 1e4
    trainer.after_optimizer_step = lambda step: None
    run_epochs(trainer, 1)
    assert any("collapses" in line for line in log)


@pytest.mark.parametrize("kind", ["gaussian", "linear", "constant"])
def test_the_weight_is_the_ramp_times_the_squared_reliability(kind, make_trainer):
    trainer = make_trainer("SemiMeanTeacherTrainer", ramp_up=kind, ramp_up_steps=4)
    weight = trainer.unlabelled_weight
    assert weight.reliability == 0.0 and weight.at(100) == 0.0
    weight.reliability = 0.5
    assert [weight.at(step) for step in range(9)] == [0.25 * ramp(kind, s, 4) for s in range(9)]
    constant = make_trainer("SemiMeanTeacherTrainer", ramp_up=kind, unlabelled_start_steps=0)
    assert constant.unlabelled_weight.at(10**6) == 1.0
    assert constant.unlabelled_weight.combine_classes(np.array([0.0]), 1) == 1.0
    delayed = {"ramp_up": kind, "unlabelled_start_steps": 3, "ramp_up_steps": 4}
    ramped = make_trainer("SemiMeanTeacherTrainer", **delayed, follow_trust=False).unlabelled_weight
    assert ramped.combine_classes(np.array([0.0]), 1) == 1.0
    assert [ramped.at(s) for s in range(9)] == [0, 0, 0, *(ramp(kind, s, 4) for s in range(6))]


def test_the_planned_ramp_ends_before_the_training(phantom):
    from semi_nnunet.methods.mean_teacher import MeanTeacherSettings
    from semi_nnunet.planning.properties import collect_properties, resolve_settings

    facts = collect_properties(phantom.plans, "2d", phantom.dataset_json, phantom.preprocessed)
    for epochs in (1, 7, 24, 60, 1000):
        plans = {**phantom.plans, "semi": {"epochs": epochs, "steps_per_epoch": 50}}
        planned = resolve_settings(MeanTeacherSettings, "T", "2d", plans, facts).settings
        assert planned.unlabelled_start_steps <= min(2000, 0.41 * epochs * 50)
        assert planned.ramp_up_steps <= 0.41 * epochs * 50


def test_reliability_is_the_dice_above_that_of_calling_everything_the_class():
    tp, fp, fn = np.array([50, 30, 0, 0]), np.array([50, 70, 10, 10]), np.array([0, 20, 5, 0])
    reliability = compute_class_reliability(tp, fp, fn, 100)
    assert reliability[0] == 0.0  # half of the voxels are the class, and all were called it
    chance, dice = 2 * 0.5 / 1.5, 60 / 150
    assert reliability[1] == max(0.0, (dice - chance) / (1 - chance)) == 0.0
    assert reliability[2] == 0.0 and np.isnan(reliability[3])
    perfect = compute_class_reliability(np.array([40]), np.array([0]), np.array([0]), 100)
    assert perfect.tolist() == [1.0]
    half = compute_class_reliability(np.array([1]), np.array([1]), np.array([1]), 10**6)
    assert half[0] == pytest.approx(0.5, abs=1e-5)


def test_the_worst_class_decides_at_first_then_the_mean(make_trainer):
    weight = make_trainer("SemiMeanTeacherTrainer", unlabelled_start_steps=6).unlabelled_weight
    classes = np.array([0.9, 0.3, float("nan")])  # the third is in no validation patch
    assert weight.combine_classes(classes, 4) == 0.0
    assert weight.combine_classes(classes[:2], 4) == pytest.approx(0.3)
    assert weight.combine_classes(classes, 6) == pytest.approx(0.6)
    assert weight.combine_classes(classes[2:], 8) == 0.0


def test_validation_sets_the_reliability_of_the_next_epoch(make_trainer):
    trainer = make_trainer("SemiMeanTeacherTrainer", unlabelled_start_steps=4, start=False)
    log = []
    say, trainer.print_to_log_file = trainer.print_to_log_file, lambda *a, **k: log.append(str(a))
    run_epochs(trainer, 1)
    tp = {"tp_hard": np.array([8, 8, 8]), "fp_hard": np.zeros(3), "fn_hard": np.zeros(3)}
    trainer.unlabelled_weight.reliability, trainer.step_in_epoch = 0.0, 0
    assert "trust" in trainer.run_log.epoch_values
    assert (
        trainer.reliability_meter.after_validation([{**tp, "voxels": 10**6}], trainer.step) == 1.0
    )
    assert trainer.unlabelled_weight.reliability == 1.0
    assert any("begin at step 2" in line for line in log)
    trainer.current_epoch = 3
    empty = {key: np.zeros(3) for key in tp}
    trainer.reliability_meter.after_validation([{**empty, "voxels": 10**6}], trainer.step)
    assert trainer.unlabelled_weight.reliability == 0.0 and "WARNING" in log[-1]
    trainer.print_to_log_file = say


def test_reliability_on_unseen_images_loses_twice_what_augmentation_costs():
    trained, augmented = np.array([0.8, 0.5, 0.0, 0.4, 0.9]), np.array([0.4, 0.7, 0.3, 0.0, np.nan])
    assert estimate_unseen_reliability(trained, augmented)[:4].tolist() == pytest.approx(
        [0.2, 0.5, 0.0, 0.0]
    )
    assert np.isnan(estimate_unseen_reliability(trained, augmented)[4])
    assert np.isnan(estimate_unseen_reliability(augmented, trained)[4])


@pytest.mark.parametrize("kind", ["labels", "regions", "regions_ignore"])
def test_with_fold_all_augmented_patches_are_counted(make_trainer, kind):
    """Fold "all" trains on its validation cases."""
    settings = {"fold": "all", "kind": kind, "unlabelled_start_steps": 4}
    trainer = make_trainer("SemiMeanTeacherTrainer", **settings)
    labelled, _ = trainer.on_device(next(trainer.dataloader_train)[0])
    trainer.supervised(labelled)
    with torch.no_grad():
        logits, target = trainer.outputs(labelled.x)[0], labelled.target[0]
    (tp, fp, fn, voxels), *_ = trainer.reliability_meter.labelled_counts
    evaluated = (
        target[:, -1] == 0 if kind == "regions_ignore" else torch.ones_like(target[:, 0]) > 0
    )
    for index in range(len(tp)):
        if trainer.exclusive:
            predicted, labelled = logits.argmax(1) == index + 1, target[:, 0] == index + 1
        else:
            predicted, labelled = logits[:, index] > 0, target[:, index] > 0
        assert tp[index] == (predicted & labelled & evaluated).sum()
        assert fp[index] == (predicted & ~labelled & evaluated).sum()
        assert fn[index] == (labelled & ~predicted & evaluated).sum()
        assert voxels[index] == evaluated.sum()
    # reliability 1, and a half on augmented patches: a quarter on unseen images
    count, none = torch.full((len(tp),), 500.0), torch.zeros(len(tp))
    many = torch.full((len(tp),), 1e9)
    of_step = torch.stack([count, count, count, many])
    earlier = torch.stack([none, count, count, many])  # of an earlier network
    trainer.reliability_meter.labelled_counts[:] = [earlier] * 6 + [of_step] * 2
    whole = {"tp_hard": count.numpy(), "fp_hard": none.numpy(), "fn_hard": none.numpy()}
    trainer.reliability_meter.after_validation([{**whole, "voxels": 10**9}], trainer.step)
    assert trainer.unlabelled_weight.reliability == pytest.approx(0.25, abs=1e-5)
    assert not trainer.reliability_meter.labelled_counts  # reset for the next epoch


def test_with_other_folds_only_the_validation_counts(make_trainer):
    trainer = make_trainer("SemiMeanTeacherTrainer", fold=0, unlabelled_start_steps=4)
    trainer.train_step(next(trainer.dataloader_train))
    whole = {"tp_hard": np.full(3, 8), "fp_hard": np.zeros(3), "fn_hard": np.zeros(3)}
    trainer.reliability_meter.after_validation([{**whole, "voxels": 10**6}], trainer.step)
    assert trainer.unlabelled_weight.reliability == 1.0


def test_the_reliability_is_resumed(make_trainer):
    settings = {"start": False, "unlabelled_start_steps": 6}
    trainer = make_trainer("SemiMeanTeacherTrainer", "3d_fullres", **settings)
    run_epochs(trainer, 1)
    trainer.unlabelled_weight.reliability = 0.25
    content = trainer.checkpoint_content(1)
    resumed = make_trainer("SemiMeanTeacherTrainer", "3d_fullres", **settings)
    resumed.load_checkpoint(content)
    assert resumed.unlabelled_weight.reliability == 0.25
