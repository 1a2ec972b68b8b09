"""UniMatch."""

from __future__ import annotations

import pytest
import torch

from tests.methods.by_hand import dice_ce_by_hand
from tests.methods.confident import prepared, remember_mixes, target_and_mask


@pytest.mark.parametrize("kind", ["labels", "regions"])
def test_unimatch_has_two_strong_views_and_one_with_perturbed_features(kind, make_trainer):
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
    unmixed = [lambda x: x]
    for term, x, mix in zip(rest, (first, second, weak), mixes + unmixed, strict=True):
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
