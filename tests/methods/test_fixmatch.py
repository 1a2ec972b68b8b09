"""FixMatch."""

from __future__ import annotations

import pytest
import torch

from tests.methods.by_hand import dice_ce_by_hand, mixed_by_hand
from tests.methods.confident import prepared, remember_mixes, target_and_mask


@pytest.mark.parametrize("kind", ["labels", "regions"])
def test_the_strong_view_learns_confident_pseudo_labels_of_the_weak_one(kind, make_trainer):
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


def test_without_confident_voxels_there_is_no_gradient(make_trainer):
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
