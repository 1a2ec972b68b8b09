"""FixMatch's and UniMatch's own arithmetic."""

from __future__ import annotations

import pytest
import torch

from semi_nnunet.core.pseudo_labels import hard_pseudo_label
from tests.methods.by_hand import dice_ce_by_hand, mixed_by_hand
from tests.trainers import WITHOUT_RAMP

SETTINGS = {**WITHOUT_RAMP, "threshold": 0.55, "class_wise_threshold": False}


def prepared(make_trainer, name, kind, **settings):
    """A trainer after one step, and its next batch."""
    trainer = make_trainer(name, kind=kind, **{**SETTINGS, **settings})
    trainer.train_step(next(trainer.dataloader_train))
    trainer.network.eval()
    return trainer, *trainer.on_device(next(trainer.dataloader_train)[0])


def remember_mixes(trainer) -> list:
    mixes, draw = [], trainer.cutmix
    trainer.cutmix = lambda like: (mixes.append(draw(like)), mixes[-1])[1]
    return mixes


def target_and_mask(trainer, unlabelled):
    """Pseudo labels and where their confidence is at least .55 in every class that counts."""
    probs = trainer.teacher_probs(unlabelled.x_weak)
    if trainer.exclusive:
        sure = probs.max(1, keepdim=True).values >= 0.55
    else:
        sure = (torch.maximum(probs, 1 - probs) >= 0.55).all(1, keepdim=True)
    return hard_pseudo_label(probs, trainer.exclusive), sure & unlabelled.mask


@pytest.mark.parametrize("kind", ["labels", "regions"])
def test_strong_view_is_taught_by_confident_pseudo_labels_of_the_weak_one(kind, make_trainer):
    trainer, labelled, unlabelled = prepared(make_trainer, "SemiFixMatchTrainer", kind)
    mixes = remember_mixes(trainer)
    _, strong = trainer.terms(labelled, unlabelled)
    target, mask = target_and_mask(trainer, unlabelled)
    assert mask.any() and not mask.all()
    box, partner = mixes[0].box, mixes[0].partner
    with torch.no_grad():
        logits = trainer.predict(mixed_by_hand(unlabelled.x_strong, box, partner))
    expected = dice_ce_by_hand(
        logits,
        mixed_by_hand(target, box, partner),
        mixed_by_hand(mask, box, partner),
        trainer.exclusive,
    )
    assert strong.value.item() == pytest.approx(expected, abs=1e-5)
    assert (strong.weight, strong.ramped) == (0.5, True)


def test_nothing_confident_teaches_nothing(make_trainer):
    trainer, labelled, unlabelled = prepared(
        make_trainer, "SemiFixMatchTrainer", "labels", threshold=0.999999
    )
    _, strong = trainer.terms(labelled, unlabelled)
    trainer.optimizer.zero_grad()
    strong.value.backward()
    gradients = [p.grad for p in trainer.network.parameters() if p.grad is not None]
    assert all(not gradient.any() for gradient in gradients)


def test_learned_thresholds_are_part_of_the_checkpoint(make_trainer):
    trainer, *_ = prepared(make_trainer, "SemiFixMatchTrainer", "labels", class_wise_threshold=True)
    learned = trainer.companion("thresholds").mean.clone()
    assert not torch.allclose(learned, torch.full_like(learned, 0.25))
    content = trainer.checkpoint_content(1)
    assert torch.equal(content["semi"]["companions"]["thresholds.mean"], learned)


@pytest.mark.parametrize("kind", ["labels", "regions"])
def test_unimatch_has_two_strong_views_and_one_of_features(kind, make_trainer):
    trainer, labelled, unlabelled = prepared(make_trainer, "SemiUniMatchTrainer", kind, dropout=0.0)
    mixes = remember_mixes(trainer)
    seen = []
    trainer.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    _, *rest = trainer.terms(labelled, unlabelled)
    names_and_weights = [(term.name, term.weight) for term in rest]
    assert names_and_weights == [
        *(("strong_1", 0.125), ("strong_2", 0.125), ("features", 0.25)),
    ]
    target, mask = target_and_mask(trainer, unlabelled)
    _, first, second, weak = seen
    assert torch.equal(first, mixes[0](unlabelled.x_strong)) and torch.equal(
        weak, unlabelled.x_weak
    )
    assert not torch.equal(second, mixes[1](unlabelled.x_strong))
    assert not torch.equal(mixes[0].box, mixes[1].box)
    same = [lambda x: x]
    for term, x, mix in zip(rest, (first, second, weak), mixes + same, strict=True):
        with torch.no_grad():
            logits = trainer.predict(x)
        expected = dice_ce_by_hand(logits, mix(target), mix(mask), trainer.exclusive)
        assert term.value.item() == pytest.approx(expected, abs=1e-5)


def test_unimatch_drops_channels_on_every_skip(make_trainer):
    trainer, labelled, unlabelled = prepared(make_trainer, "SemiUniMatchTrainer", "labels")
    dropped = []

    def look(module, inputs):
        dropped.append([(skip.flatten(2) == 0).all(2).float().mean().item() for skip in inputs[0]])

    trainer.network.decoder.register_forward_pre_hook(look)
    list(trainer.terms(labelled, unlabelled))
    *clean, perturbed = dropped
    assert all(fraction > 0 for fraction in perturbed)
    assert all(fraction == 0 for skips in clean for fraction in skips)
