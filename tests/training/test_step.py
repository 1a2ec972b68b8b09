"""An optimizer step: what is accumulated, clipped, and stopped where it is not finite."""

from __future__ import annotations

import pytest
import torch

from semi_nnunet.training.step import Term
from semi_nnunet.util.errors import UserError
from tests.trainers import WITHOUT_RAMP, run_epochs, same_weights, weights_of


def test_accumulated_batches_average_their_gradients(make_trainer):
    trainer = make_trainer("SemiBaselineTrainer", accumulate_batches=2, gradient_clip=1e9)
    batches = next(trainer.dataloader_train)
    assert len(batches) == 2 and not torch.equal(
        batches[0]["labelled"]["data"], batches[1]["labelled"]["data"]
    )
    gradients = []
    for batch in batches:
        trainer.optimizer.zero_grad()
        trainer.supervised(trainer.on_device(batch)[0]).value.backward()
        gradients.append(
            [p.grad.clone() if p.grad is not None else None for p in trainer.network.parameters()]
        )
    trainer.optimizer_step.update = lambda step, cases: None
    trainer.train_step(batches)
    for parameter, first, second in zip(trainer.network.parameters(), *gradients, strict=True):
        if first is not None:
            torch.testing.assert_close(parameter.grad, (first + second) / 2)


def test_gradient_that_is_no_number_stops_training_before_the_weights_change(make_trainer):
    trainer = make_trainer("SemiBaselineTrainer")
    before = weights_of(trainer.bare_network)
    trainer.bare_network.decoder.seg_layers[-1].weight.register_hook(lambda g: g * float("nan"))
    batch = next(trainer.dataloader_train)
    with pytest.raises(UserError, match="'gradient' became nan") as stopped:
        trainer.train_step(batch)
    assert batch[0]["labelled"]["keys"][0] in str(stopped.value)
    assert same_weights(before, weights_of(trainer.bare_network))


def test_no_gradient_clipping_where_the_limit_is_zero(make_trainer):
    after = []
    for limit in (0.0, 1e9, 1e-3):
        trainer = make_trainer("SemiBaselineTrainer", gradient_clip=limit)
        trainer.train_step(next(trainer.dataloader_train))
        after.append(weights_of(trainer.bare_network))
    assert same_weights(after[0], after[1]) and not same_weights(after[0], after[2])


def test_weights_ramp_up_and_are_logged(make_trainer):
    trainer = make_trainer(
        "SemiMeanTeacherTrainer",
        start=False,
        consistency_weight=7.0,
        unlabelled_start_steps=0,
        ramp_up_steps=4,
    )
    run_epochs(trainer, 3)
    weights = trainer.history.series("weight/consistency")[1]
    assert weights[0] < weights[1] < weights[2] == 7.0
    assert trainer.history.series("weight/supervised")[1] == [1.0] * 3


def test_terms_of_one_name_are_parts_of_one(make_trainer):
    """A large term may be back-propagated in parts, which need less memory."""
    after, logged = [], []
    for parts in (1, 2):
        trainer = make_trainer("SemiMeanTeacherTrainer", **WITHOUT_RAMP)
        batch = next(trainer.dataloader_train)

        def terms(labelled, unlabelled, trainer=trainer, parts=parts):
            yield trainer.supervised(labelled)
            for _ in range(parts):
                loss = trainer.predict(unlabelled.x_weak).square().mean()
                yield Term("in_parts", loss / parts, weight=3.0)

        trainer.terms = terms
        trainer.train_step(batch)
        means = trainer.records.means()
        logged.append((means["loss/in_parts"], means["weight/in_parts"]))
        after.append(weights_of(trainer.bare_network))
    assert logged[1] == pytest.approx(logged[0]) and logged[0][1] == 3.0
    for name, value in after[0].items():
        torch.testing.assert_close(value, after[1][name])
