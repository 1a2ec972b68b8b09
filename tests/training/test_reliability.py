"""How far a network is trusted, and what that does to the unlabelled terms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from semi_nnunet.core.ramps import ramp
from semi_nnunet.training.reliability import reliability_of_classes, reliability_on_unknown
from tests.trainers import run_epochs


def test_teacher_that_collapses_is_warned_of(make_trainer):
    trainer = make_trainer("SemiMeanTeacherTrainer", start=False, unlabelled_start_steps=0)
    trainer.initialize()
    log = []
    trainer.print_to_log_file = lambda *args, **kwargs: log.append(" ".join(map(str, args)))
    with torch.no_grad():  # the student, which the teacher copies when training starts
        trainer.bare_network.decoder.seg_layers[-1].bias[0] = 1e4
    trainer.after_optimizer_step = lambda step: None
    run_epochs(trainer, 1)
    assert any("the teacher collapses" in line for line in log)


@pytest.mark.parametrize("kind", ["gaussian", "linear", "constant"])
def test_weight_of_unlabelled_terms_is_ramp_times_trust_squared(kind, make_trainer):
    trainer = make_trainer("SemiMeanTeacherTrainer", ramp_up=kind, ramp_up_steps=4)
    weight = trainer.unlabelled_weight
    assert weight.reliability == 0.0 and weight.at(100) == 0.0
    weight.reliability = 0.5
    assert [weight.at(step) for step in range(9)] == [0.25 * ramp(kind, s, 4) for s in range(9)]
    papers = make_trainer("SemiMeanTeacherTrainer", ramp_up=kind, unlabelled_start_steps=0)
    assert papers.unlabelled_weight.at(10**6) == 1.0
    assert papers.unlabelled_weight.reliability_after(np.array([0.0]), 1) == 1.0
    warmed = {"ramp_up": kind, "unlabelled_start_steps": 3, "ramp_up_steps": 4}
    blind = make_trainer("SemiMeanTeacherTrainer", **warmed, follow_trust=False).unlabelled_weight
    assert blind.reliability_after(np.array([0.0]), 1) == 1.0
    assert [blind.at(s) for s in range(9)] == [0, 0, 0, *(ramp(kind, s, 4) for s in range(6))]


def test_planned_ramp_is_over_before_the_training(phantom):
    from semi_nnunet.methods.mean_teacher import MeanTeacherSettings
    from semi_nnunet.planning.properties import collect_properties, resolve_settings

    facts = collect_properties(phantom.plans, "2d", phantom.dataset_json, phantom.preprocessed)
    for epochs in (1, 7, 24, 60, 1000):
        plans = {**phantom.plans, "semi": {"epochs": epochs, "steps_per_epoch": 50}}
        planned = resolve_settings(MeanTeacherSettings, "T", "2d", plans, facts).settings
        assert planned.unlabelled_start_steps <= min(2000, 0.41 * epochs * 50)
        assert planned.ramp_up_steps <= 0.41 * epochs * 50


def test_trust_is_dice_above_that_of_calling_everything_the_class():
    tp, fp, fn = np.array([50, 30, 0, 0]), np.array([50, 70, 10, 10]), np.array([0, 20, 5, 0])
    trust = reliability_of_classes(tp, fp, fn, 100)
    assert trust[0] == 0.0  # half is the class, everything was called it
    chance, dice = 2 * 0.5 / 1.5, 60 / 150
    assert trust[1] == max(0.0, (dice - chance) / (1 - chance)) == 0.0
    assert trust[2] == 0.0 and np.isnan(trust[3])
    perfect = reliability_of_classes(np.array([40]), np.array([0]), np.array([0]), 100)
    assert perfect.tolist() == [1.0]
    half = reliability_of_classes(np.array([1]), np.array([1]), np.array([1]), 10**6)
    assert half[0] == pytest.approx(0.5, abs=1e-5)


def test_the_least_known_class_decides_at_first_then_the_mean(make_trainer):
    weight = make_trainer("SemiMeanTeacherTrainer", unlabelled_start_steps=6).unlabelled_weight
    known = np.array([0.9, 0.3, float("nan")])  # no validation patch shows the third
    assert weight.reliability_after(known, 4) == 0.0
    assert weight.reliability_after(known[:2], 4) == pytest.approx(0.3)
    assert weight.reliability_after(known, 6) == pytest.approx(0.6)
    assert weight.reliability_after(known[2:], 8) == 0.0


def test_validation_sets_the_trust_of_the_next_epoch(make_trainer):
    trainer = make_trainer("SemiMeanTeacherTrainer", unlabelled_start_steps=4, start=False)
    log = []
    say, trainer.print_to_log_file = trainer.print_to_log_file, lambda *a, **k: log.append(str(a))
    run_epochs(trainer, 1)
    tp = {"tp_hard": np.array([8, 8, 8]), "fp_hard": np.zeros(3), "fn_hard": np.zeros(3)}
    trainer.unlabelled_weight.reliability, trainer.step_in_epoch = 0.0, 0
    assert "trust" in trainer.run_log.epoch_values
    assert trainer.reliability.after_validation([{**tp, "voxels": 10**6}], trainer.step) == 1.0
    assert trainer.unlabelled_weight.reliability == 1.0
    assert any("the unlabelled terms begin at step 2" in line for line in log)
    trainer.current_epoch = 3
    nothing = {key: np.zeros(3) for key in tp}
    trainer.reliability.after_validation([{**nothing, "voxels": 10**6}], trainer.step)
    assert trainer.unlabelled_weight.reliability == 0.0 and "no class is predicted yet" in log[-1]
    trainer.print_to_log_file = say


def test_trust_in_unknown_is_what_is_known_less_twice_what_augmentation_costs():
    known, augmented = np.array([0.8, 0.5, 0.0, 0.4, 0.9]), np.array([0.4, 0.7, 0.3, 0.0, np.nan])
    assert reliability_on_unknown(known, augmented)[:4].tolist() == pytest.approx(
        [0.2, 0.5, 0.0, 0.0]
    )
    assert np.isnan(reliability_on_unknown(known, augmented)[4])
    assert np.isnan(reliability_on_unknown(augmented, known)[4])


@pytest.mark.parametrize("kind", ["labels", "regions", "regions_ignore"])
def test_trust_of_fold_all_looks_at_the_patches_as_they_are_augmented(make_trainer, kind):
    """Its validation cases are trained on."""
    settings = {"fold": "all", "kind": kind, "unlabelled_start_steps": 4}
    trainer = make_trainer("SemiMeanTeacherTrainer", **settings)
    labelled, _ = trainer.on_device(next(trainer.dataloader_train)[0])
    trainer.supervised(labelled)
    with torch.no_grad():
        logits, target = trainer.outputs(labelled.x)[0], labelled.target[0]
    (tp, fp, fn, voxels), *_ = trainer.reliability.labelled_counts
    looked_at = (
        target[:, -1] == 0 if kind == "regions_ignore" else torch.ones_like(target[:, 0]) > 0
    )
    for place in range(len(tp)):
        if trainer.exclusive:
            said, known = logits.argmax(1) == place + 1, target[:, 0] == place + 1
        else:
            said, known = logits[:, place] > 0, target[:, place] > 0
        assert tp[place] == (said & known & looked_at).sum()
        assert fp[place] == (said & ~known & looked_at).sum()
        assert fn[place] == (known & ~said & looked_at).sum()
        assert voxels[place] == looked_at.sum()
    # what is known whole, and half of it as soon as it is augmented: a quarter of it elsewhere
    count, none = torch.full((len(tp),), 500.0), torch.zeros(len(tp))
    many = torch.full((len(tp),), 1e9)
    of_step = torch.stack([count, count, count, many])
    before = torch.stack([none, count, count, many])  # while the network was still another
    trainer.reliability.labelled_counts[:] = [before] * 6 + [of_step] * 2
    whole = {"tp_hard": count.numpy(), "fp_hard": none.numpy(), "fn_hard": none.numpy()}
    trainer.reliability.after_validation([{**whole, "voxels": 10**9}], trainer.step)
    assert trainer.unlabelled_weight.reliability == pytest.approx(0.25, abs=1e-5)
    assert not trainer.reliability.labelled_counts  # of the next epoch


def test_trust_of_other_folds_is_that_of_their_validation(make_trainer):
    trainer = make_trainer("SemiMeanTeacherTrainer", fold=0, unlabelled_start_steps=4)
    trainer.train_step(next(trainer.dataloader_train))
    whole = {"tp_hard": np.full(3, 8), "fp_hard": np.zeros(3), "fn_hard": np.zeros(3)}
    trainer.reliability.after_validation([{**whole, "voxels": 10**6}], trainer.step)
    assert trainer.unlabelled_weight.reliability == 1.0


def test_trust_is_continued_after_a_resume(make_trainer):
    settings = {"start": False, "unlabelled_start_steps": 6}
    trainer = make_trainer("SemiMeanTeacherTrainer", "3d_fullres", **settings)
    run_epochs(trainer, 1)
    trainer.unlabelled_weight.reliability = 0.25
    content = trainer.checkpoint_content(1)
    resumed = make_trainer("SemiMeanTeacherTrainer", "3d_fullres", **settings)
    resumed.load_checkpoint(content)
    assert resumed.unlabelled_weight.reliability == 0.25
