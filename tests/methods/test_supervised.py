"""The baseline has only nnU-Net's supervised loss."""

from __future__ import annotations

import shutil

import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from semi_nnunet.core.gated_crf import gated_crf_loss
from tests.methods.by_hand import dice_ce_by_hand
from tests.trainers import run_epochs, same_weights, weights_of

NAME = "SemiBaselineTrainer"


@pytest.mark.parametrize("kind", ["labels", "regions", "ignore"])
def test_its_only_term_is_nnunets_loss_from_the_first_step_on(kind, make_trainer):
    trainer = make_trainer(NAME, kind=kind)
    plans = {**trainer.plans_manager.plans, "continue_training": False}
    stock = nnUNetTrainer(plans, "2d", 0, trainer.dataset_json, torch.device("cpu"))
    stock.initialize()
    labelled, unlabelled = trainer.on_device(next(trainer.dataloader_train)[0])
    (term,) = trainer.terms(labelled, unlabelled)
    with torch.no_grad():
        expected = stock.loss(trainer.bare_network(labelled.x), labelled.target)
    assert term.value.item() == pytest.approx(expected.item(), abs=1e-6)
    assert (term.name, term.weight, term.ramped) == ("supervised", 1.0, False)


@pytest.mark.parametrize("kind", ["labels", "regions"])
def test_without_deep_supervision_it_is_dice_and_cross_entropy_by_hand(kind, make_trainer):
    trainer = make_trainer(NAME, kind=kind, deep_supervision=False)
    labelled, _ = trainer.on_device(next(trainer.dataloader_train)[0])
    target, mask = trainer.annotation(labelled.target)
    (term,) = trainer.terms(labelled, None)
    with torch.no_grad():
        logits = trainer.bare_network(labelled.x)
    expected = dice_ce_by_hand(logits, target, mask, trainer.exclusive)
    assert term.value.item() == pytest.approx(expected, abs=1e-4)


def test_the_crf_loss_of_the_labelled_patches_is_added_as_its_weight_grows(make_trainer):
    trainers = [
        make_trainer(NAME, kind="ignore", crf_weight=weight, epochs=50) for weight in (0.0, 0.1)
    ]
    labelled, _ = trainers[0].on_device(next(trainers[0].dataloader_train)[0])
    with torch.no_grad():
        logits = trainers[0].outputs(labelled.x)[0]
        energy = gated_crf_loss(logits.softmax(1), labelled.x, True).item()
    assert energy > 1
    for done, share in ((0.0, 0.0), (0.1, 0.5), (0.2, 1.0), (1.0, 1.0)):
        for trainer in trainers:
            trainer.current_epoch = round(done * trainer.settings.epochs)
        plain, with_crf = (trainer.supervised(labelled).value.item() for trainer in trainers)
        assert with_crf - plain == pytest.approx(0.1 * share * energy, rel=1e-4, abs=1e-6)


def test_unlabelled_images_are_not_needed(make_trainer, prepared_dataset, tmp_path, monkeypatch):
    with_images = make_trainer(NAME, start=False, epochs=1)
    run_epochs(with_images, 1)
    dataset = prepared_dataset("labels", 1)
    copy = tmp_path / "preprocessed" / dataset.name
    shutil.copytree(dataset.preprocessed, copy, ignore=shutil.ignore_patterns("*_unlabeled*"))
    monkeypatch.setenv("nnUNet_preprocessed", str(copy.parent))
    without = make_trainer(NAME, start=False, epochs=1)
    assert without.preprocessed_dataset_folder.startswith(str(copy))
    run_epochs(without, 1)
    assert set(next(without.dataloader_train)[0]) == {"labelled"}
    assert same_weights(*(weights_of(t.bare_network) for t in (with_images, without)))


def test_it_trains_and_deploys_one_network(make_trainer):
    trainer = make_trainer(NAME)
    assert trainer.prediction_network() is trainer.bare_network
    optimised = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert optimised == {id(p) for p in trainer.bare_network.parameters()}
    initial = weights_of(trainer.bare_network)
    trainer.train_step(next(trainer.dataloader_train))
    assert not same_weights(initial, weights_of(trainer.bare_network))
