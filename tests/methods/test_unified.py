"""Unified: consistency, boxes where the batch is small, and its earlier forms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import semi_nnunet.methods.unified as unified
from semi_nnunet.training.losses import compute_supervised_loss
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
def test_boxes_in_copies_are_learned_like_labelled_patches(
    kind, partial, sizes, make_trainer, prepared_dataset, monkeypatch
):
    settings = {
        "labelled_batch_size": sizes[0],
        "unlabelled_batch_size": sizes[1],
        "variant": "full",
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


@pytest.mark.parametrize(
    ("kind", "partial"), [("labels", False), ("labels", True), ("regions_ignore", False)]
)
@pytest.mark.parametrize("deep_supervision", [True, False])
def test_boxes_are_pasted_into_the_labelled_patches_of_the_supervised_loss(
    kind, partial, deep_supervision, make_trainer, prepared_dataset, monkeypatch
):
    """The term is nnU-Net's loss of the mixed patches and of their labels, at every resolution."""
    dataset = partially_annotated(prepared_dataset(kind, 1), kind) if partial else None
    settings = {"labelled_batch_size": 4, "deep_supervision": deep_supervision, **WITHOUT_RAMP}
    trainer = make_trainer(NAME, kind=kind, dataset=dataset, **settings)
    trainer.train_step(next(trainer.dataloader_train))
    labelled, unlabelled = trainer.on_device(next(trainer.dataloader_train)[0])
    boxes = remember_boxes(monkeypatch, unified)
    (term,) = trainer.terms(labelled, unlabelled)  # of the second step: no consistency
    guess = labels_by_hand(trainer.teacher_probs(unlabelled.x_weak), trainer.exclusive)
    sources = [patch % len(guess) for patch in range(4)]
    box = boxes[0] & unlabelled.mask[sources]
    levels = labelled.target if deep_supervision else [labelled.target]
    full = levels[0].clone()
    if trainer.exclusive:
        full[box] = guess[sources].argmax(1, keepdim=True).to(full.dtype)[box]
    else:
        for region in range(guess.shape[1]):
            inside = guess[sources][:, region : region + 1].to(full.dtype)
            full[:, region : region + 1][box] = inside[box]
        full[:, -1:][box] = 0  # a pseudo label has no ignored voxels
    mixed = [nearest_by_hand(full, level.shape[2:]) for level in levels]
    x = torch.where(box, unlabelled.x_strong[sources], labelled.x)
    with torch.no_grad():
        target = mixed if deep_supervision else mixed[0]
        by_hand = compute_supervised_loss(
            trainer.loss, trainer.outputs(x), target, labelled.annotated
        )
    assert term.value.item() == pytest.approx(by_hand.item(), abs=1e-6)
    assert (term.name, term.ramped, term.reads_unlabelled) == ("supervised", False, True)
    assert box.any() and not (full == levels[0]).all()


def nearest_by_hand(labels: torch.Tensor, spatial: Sequence[int]) -> torch.Tensor:
    """Return the voxel nearest to the centre of each coarser voxel."""
    centres = [
        [int((i + 0.5) * edge / small) for i in range(small)]
        for edge, small in zip(labels.shape[2:], spatial, strict=True)
    ]
    picked = labels.numpy()[(slice(None), slice(None), *np.ix_(*centres))]
    return torch.from_numpy(picked)


def test_more_patches_get_a_box_as_the_unlabelled_weight_grows(make_trainer, monkeypatch):
    settings = {"labelled_batch_size": 64, "unlabelled_batch_size": 2, **WITHOUT_RAMP}
    for weight, expected in ((0.0, 0), (0.5, 32), (1.0, 64)):
        trainer = make_trainer(NAME, unlabelled_weight=weight, **settings)
        labelled, unlabelled = trainer.on_device(next(trainer.dataloader_train)[0])
        unlabelled = replace(unlabelled, mask=torch.ones_like(unlabelled.mask))
        probs = trainer.teacher_probs(unlabelled.x_weak)
        torch.manual_seed(0)
        mixed = trainer.paste(labelled, unlabelled, probs)
        count = int(mixed.pasted.flatten(1).any(1).sum())
        assert count == expected if weight != 0.5 else abs(count - expected) < 16
        unchanged = ~mixed.pasted.expand_as(mixed.x)
        assert torch.equal(mixed.x[unchanged], labelled.x[unchanged])


def test_fewer_patches_get_a_box_the_more_of_their_voxels_are_ignored(make_trainer):
    settings = {"labelled_batch_size": 64, "unlabelled_batch_size": 2, **WITHOUT_RAMP}
    trainer = make_trainer(NAME, kind="ignore", deep_supervision=False, **settings)
    labelled, unlabelled = trainer.on_device(next(trainer.dataloader_train)[0])
    unlabelled = replace(unlabelled, mask=torch.ones_like(unlabelled.mask))
    target = torch.zeros_like(labelled.target)
    edge = target.shape[-1]
    target[:32, ..., : edge // 4] = trainer.label_manager.ignore_label
    target[32:, ..., : edge // 2] = trainer.label_manager.ignore_label
    probs = trainer.teacher_probs(unlabelled.x_weak)
    torch.manual_seed(0)
    mixed = trainer.paste(replace(labelled, target=target), unlabelled, probs)
    has_box = mixed.pasted.flatten(1).any(1)
    assert 8 < int(has_box[:32].sum()) < 24 and not has_box[32:].any()


def test_pasted_voxels_do_not_count_for_the_reliability(make_trainer):
    """With fold "all", correct voxels of labelled patches are counted, not those of boxes."""
    trainer = make_trainer(NAME, fold="all", **WITHOUT_RAMP)
    trainer.reliability_meter.weight.follows_reliability = True
    labelled, unlabelled = trainer.on_device(next(trainer.dataloader_train)[0])
    probs = trainer.teacher_probs(unlabelled.x_weak)
    mixed = trainer.paste(labelled, unlabelled, probs)
    trainer.supervised(mixed)
    (counts,) = trainer.reliability_meter.labelled_counts
    assert counts[3].tolist() == [int((~mixed.pasted).sum())] * counts.shape[1]


def test_labelled_patches_get_no_box_where_they_share_the_batch(make_trainer, prepared_dataset):
    trainer = make_trainer(NAME, dataset=with_batches_of_four(prepared_dataset), **WITHOUT_RAMP)
    labelled, unlabelled = trainer.on_device(next(trainer.dataloader_train)[0])
    terms = trainer.terms(labelled, unlabelled)
    supervised = next(terms)
    with torch.no_grad():
        by_hand = trainer.loss(trainer.outputs(labelled.x), labelled.target)
    assert supervised.value.item() == pytest.approx(by_hand.item(), abs=1e-6)
    assert not supervised.reads_unlabelled
    assert [term.name for term in terms] == ["consistency"]


def test_consistency_comes_every_second_step_on_request(make_trainer):
    trainer = make_trainer(NAME, consistency_every_steps=2, **WITHOUT_RAMP)
    names = []
    for _ in range(3):
        trainer.train_step(next(trainer.dataloader_train))
        names.append("loss/consistency" in trainer.records.means())
    assert names == [True, False, True]


def with_batches_of_four(prepared_dataset) -> SimpleNamespace:
    prepared = prepared_dataset("labels", 1)
    plans = prepared.plans
    plans["configurations"]["2d"]["batch_size"] = 4
    return SimpleNamespace(plans=plans, dataset_json=prepared.dataset_json)


@pytest.mark.parametrize("variant", ["full", "whole_batch"])
def test_a_training_of_an_earlier_version_continues_as_it_began(
    make_trainer, prepared_dataset, tmp_path, variant
):
    dataset = with_batches_of_four(prepared_dataset)
    began = make_trainer(NAME, dataset=dataset, variant=variant, **WITHOUT_RAMP)
    began.train_step(next(began.dataloader_train))
    path = tmp_path / "earlier.pth"
    began.save_checkpoint(str(path), 0, **began.epoch_progress.state(1))
    content = torch.load(path, weights_only=False)
    content["semi"]["settings"]["variant"] = "ours"
    if variant == "full":  # was the default before these settings existed
        for name in ("boxes_in_copies", "consistency_every_steps", "variant"):
            del content["semi"]["settings"][name]
    dataset = with_batches_of_four(prepared_dataset)
    continued = make_trainer(NAME, dataset=dataset, start=False, **WITHOUT_RAMP)
    assert continued.settings.unlabelled_gradient_limit == 0
    assert continued.settings.labelled_batch_size == continued.settings.unlabelled_batch_size == 2
    continued.load_checkpoint(content)
    continued.on_train_start()
    continued.on_train_epoch_start()
    names = ("boxes_weight", "boxes_in_copies", "consistency_every_steps", "labelled_batch_size")
    names += ("unlabelled_batch_size", "unlabelled_gradient_limit")
    for name in names:
        assert getattr(continued.settings, name) == getattr(began.settings, name)
    assert continued.optimizer_step.balance.limit == began.optimizer_step.balance.limit
    batch = next(began.dataloader_train)
    for trainer in (began, continued):
        trainer.step_in_epoch = 1
        trainer.train_step(batch)
    assert same_weights(weights_of(began.bare_network), weights_of(continued.bare_network))


def test_boxes_belong_to_the_gradient_that_limits_the_other(make_trainer):
    """With a limit of 1e-9 only the supervised term and the boxes have an effect."""
    results = []
    for settings in ({"unlabelled_gradient_limit": 1e-9}, {"consistency_weight": 0.0}):
        trainer = make_trainer(
            NAME,
            variant="full",
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
    trainer = make_trainer(NAME, variant="full", epochs=10, steps_per_epoch=10)
    limit = trainer.optimizer_step.balance.limit
    assert [limit.at(step) for step in (0, 100)] == pytest.approx([2.0, 0.25])
    settings = {"unlabelled_gradient_limit": 0.5, "unlabelled_gradient_limit_at_end": None}
    constant = make_trainer(NAME, **settings)
    assert constant.optimizer_step.balance.limit.at(70) == 0.5
