"""Unified: consistency and boxes, with a falling limit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import semi_nnunet.methods.unified as unified
from tests.methods.by_hand import (
    dice_ce_by_hand,
    labels_by_hand,
    pasted_by_hand,
    remember_boxes,
)
from tests.trainers import WITHOUT_RAMP, partially_annotated, same_weights, weights_of

NAME = "SemiUnifiedTrainer"


@pytest.mark.parametrize("sizes", [(4, 4), (3, 2), (1, 2)])
@pytest.mark.parametrize(
    ("kind", "partial"), [("labels", False), ("labels", True), ("regions_ignore", False)]
)
def test_a_box_of_an_unlabelled_patch_is_learned_in_every_labelled_one(
    kind, partial, sizes, make_trainer, prepared_dataset, monkeypatch
):
    settings = {
        "labelled_batch_size": sizes[0],
        "unlabelled_batch_size": sizes[1],
        **WITHOUT_RAMP,
    }
    dataset = partially_annotated(prepared_dataset(kind, 1), kind) if partial else None
    trainer = make_trainer(NAME, kind=kind, dataset=dataset, **settings)
    trainer.train_step(next(trainer.dataloader_train))
    labelled, unlabelled = trainer.on_device(next(trainer.dataloader_train)[0])
    boxes = remember_boxes(monkeypatch, unified)
    _, term, consistency = trainer.terms(labelled, unlabelled)
    probs = trainer.teacher_probs(unlabelled.x_weak)
    onehot, mask = trainer.annotation(labelled.target)
    guess = labels_by_hand(probs, trainer.exclusive)
    sources = [patch % sizes[1] for patch in range(sizes[0])]
    x, target, mask = (
        pasted_by_hand(around, inside[sources], boxes[0])
        for around, inside in (
            (labelled.x, unlabelled.x_strong), (onehot, guess), (mask, unlabelled.mask),
        )
    )  # fmt: skip
    with torch.no_grad():
        logits = trainer.predict(x)
    by_hand = dice_ce_by_hand(logits, target, mask, trainer.exclusive, labelled.annotated)
    assert term.value.item() == pytest.approx(by_hand, abs=1e-5)
    assert (term.weight, term.ramped, term.limited) == (1.0, True, False)
    assert (consistency.name, consistency.limited) == ("consistency", True)
    edges = [round(edge / 3) for edge in trainer.configuration_manager.patch_size]
    assert [int(box.sum()) for box in boxes[0]] == [np.prod(edges)] * sizes[0]


def test_boxes_belong_to_the_gradient_that_limits_the_other(make_trainer):
    """With a limit of 1e-9 only the supervised term and the boxes have an effect."""
    results = []
    for settings in ({"unlabelled_gradient_limit": 1e-9}, {"consistency_weight": 0.0}):
        trainer = make_trainer(
            NAME,
            optimizer="sgd",
            momentum=0.0,
            **WITHOUT_RAMP,
            follow_reliability=False,
            **settings,
        )
        initial = weights_of(trainer.bare_network)
        trainer.train_step(next(trainer.dataloader_train))
        results.append(weights_of(trainer.bare_network))
        assert trainer.records.means()["weight/boxes"] == 1.0
    for key, value in results[0].items():
        torch.testing.assert_close(results[1][key], value, rtol=1e-4, atol=1e-6)
    assert not same_weights(results[0], initial)


def test_the_limit_falls_over_the_training(make_trainer):
    trainer = make_trainer(NAME, epochs=10, steps_per_epoch=10)
    limit = trainer.optimizer_step.balance.limit
    assert [limit.at(step) for step in (0, 100)] == pytest.approx([2.0, 0.25])
    settings = {"unlabelled_gradient_limit": 0.5, "unlabelled_gradient_limit_at_end": None}
    constant = make_trainer(NAME, **settings)
    assert constant.optimizer_step.balance.limit.at(70) == 0.5
