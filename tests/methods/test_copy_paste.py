"""Bidirectional copy-paste."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import semi_nnunet.methods.copy_paste as copy_paste
from tests.methods.by_hand import (
    dice_ce_by_hand,
    labels_by_hand,
    pasted_by_hand,
    remember_boxes,
)
from tests.trainers import WITHOUT_RAMP, partially_annotated

NAME = "SemiBCPTrainer"


@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize("kind", ["labels", "ignore", "regions_ignore"])
def test_boxes_go_both_ways_with_their_weights(
    kind, partial, make_trainer, prepared_dataset, monkeypatch
):
    settings = {"labelled_batch_size": 4, "unlabelled_batch_size": 4, **WITHOUT_RAMP}
    dataset = partially_annotated(prepared_dataset(kind, 1), kind) if partial else None
    trainer = make_trainer(NAME, kind=kind, dataset=dataset, **settings)
    trainer.train_step(next(trainer.dataloader_train))
    labelled, unlabelled = trainer.on_device(next(trainer.dataloader_train)[0])
    boxes = remember_boxes(monkeypatch, copy_paste)
    _, mixtures = trainer.terms(labelled, unlabelled)
    probs = trainer.teacher_probs(unlabelled.x_weak)
    guess = labels_by_hand(probs, trainer.exclusive)
    onehot, mask = trainer.annotation(labelled.target)
    first, second = slice(0, 2), slice(2, 4)

    def expected(half, box, a, b, weights):
        (xa, ta, ma, ca), (xb, tb, mb, cb) = a, b
        with torch.no_grad():
            logits = trainer.predict(pasted_by_hand(xa[half], xb[half], box))
        target = pasted_by_hand(ta[half], tb[half], box)
        regions = (ma[half] & ~box, mb[half] & box)
        annotated = (rows if rows is None else rows[half] for rows in (ca, cb))
        return sum(
            weight * dice_ce_by_hand(logits, target, region, trainer.exclusive, classes)
            for weight, region, classes in zip(weights, regions, annotated, strict=True)
        )

    assert partial == (labelled.annotated is not None and not labelled.annotated.all())
    truth, guessed = (
        (labelled.x, onehot, mask, labelled.annotated),
        (unlabelled.x_strong, guess, unlabelled.mask, None),
    )
    inward = expected(first, boxes[0], truth, guessed, (1.0, 0.5))
    outward = expected(second, boxes[1], guessed, truth, (0.5, 1.0))
    assert mixtures.value.item() == pytest.approx(inward + outward, abs=2e-5)


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_box_follows_the_patch(configuration, make_trainer, monkeypatch):
    trainer = make_trainer(NAME, configuration, **WITHOUT_RAMP)
    boxes = remember_boxes(monkeypatch, copy_paste)
    trainer.train_step(next(trainer.dataloader_train))
    patch = trainer.configuration_manager.patch_size
    assert len(boxes) == 2
    for box in boxes:
        assert box.sum() == np.prod([round(edge * 2 / 3) for edge in patch])


def test_both_mixtures_are_weighted_by_reliability(make_trainer):
    trainer = make_trainer(NAME, ramp_up="constant")
    trainer.unlabelled_weight.reliability = 0.0
    trainer.train_step(next(trainer.dataloader_train))
    assert trainer.records.means()["weight/mixtures"] == 0
    trainer.unlabelled_weight.reliability = 0.5
    trainer.train_step(next(trainer.dataloader_train))
    means = trainer.records.means()
    weights = {name: value for name, value in means.items() if name.startswith("weight/")}
    assert weights == {
        "weight/supervised": 1,
        "weight/mixtures": 0.25 * 0.5**2,
    }


@pytest.mark.parametrize("sizes", [(2, 6), (6, 2), (1, 2)])
def test_every_patch_of_unequal_batches_is_mixed(sizes, make_trainer):
    labelled_size, unlabelled_size = sizes
    trainer = make_trainer(
        NAME,
        labelled_batch_size=labelled_size,
        unlabelled_batch_size=unlabelled_size,
        **WITHOUT_RAMP,
    )
    halves, mixture = [], trainer.mixture
    trainer.mixture = lambda *args: (halves.extend(args[:2]), mixture(*args))[1]
    seen, predict = [], trainer.predict
    trainer.predict = lambda x, *rest: (seen.append(len(x)), predict(x, *rest))[1]
    labelled, unlabelled = trainer.on_device(next(trainer.dataloader_train)[0])
    list(trainer.terms(labelled, unlabelled))
    patches = {patch.sum().item() for half in halves for patch in half.x}
    every = [*labelled.x, *unlabelled.x_strong]
    assert patches == {patch.sum().item() for patch in every}
    inward, outward = (max(len(half.x) for half in pair) for pair in (halves[:2], halves[2:]))
    assert seen[-1] == inward + outward


def test_largest_component_is_a_setting(make_trainer, monkeypatch):
    calls = []
    monkeypatch.setattr(
        copy_paste, "keep_largest_in_patches", lambda target, e: (calls.append(e), target)[1]
    )
    for selected in (False, True):
        trainer = make_trainer(NAME, largest_component=selected, **WITHOUT_RAMP)
        trainer.train_step(next(trainer.dataloader_train))
        assert len(calls) == int(selected)
