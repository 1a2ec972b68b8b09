"""An optimizer step: accumulated, clipped, and stopped if a value is not finite."""

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


def test_the_last_pass_of_a_step_is_foreseen_though_every_second_step_has_fewer(make_trainer):
    trainer = make_trainer(
        "SemiUnifiedTrainer", **WITHOUT_RAMP, variant="whole_batch", unlabelled_gradient_limit=0.0
    )
    passes, foreseen = [], list[list[bool]]()
    average = trainer.optimizer_step.balance.average
    average.begin_pass = lambda is_last: passes.append(is_last)
    for _ in range(6):
        trainer.train_step(next(trainer.dataloader_train))
        foreseen.append([*passes])
        passes.clear()
    assert foreseen[2:] == [[False, True], [True], [False, True], [True]]


def test_gradient_that_is_no_number_stops_training_before_the_weights_change(make_trainer):
    trainer = make_trainer("SemiBaselineTrainer")
    before = weights_of(trainer.bare_network)
    trainer.bare_network.decoder.seg_layers[-1].weight.register_hook(lambda g: g * float("nan"))
    batch = next(trainer.dataloader_train)
    with pytest.raises(UserError, match=r"gradient.*nan") as error:
        trainer.train_step(batch)
    assert batch[0]["labelled"]["keys"][0] in error.value.what
    assert same_weights(before, weights_of(trainer.bare_network))


def test_gradients_are_not_clipped_if_the_limit_is_zero(make_trainer):
    weights = []
    for limit in (0.0, 1e9, 1e-3):
        trainer = make_trainer("SemiBaselineTrainer", gradient_clip=limit)
        trainer.train_step(next(trainer.dataloader_train))
        weights.append(weights_of(trainer.bare_network))
    assert same_weights(weights[0], weights[1]) and not same_weights(weights[0], weights[2])


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


def test_terms_of_equal_names_are_added_up(make_trainer):
    """A large term may be split, which needs less memory."""
    weights, logged = [], []
    for count in (1, 2):
        trainer = make_trainer("SemiMeanTeacherTrainer", **WITHOUT_RAMP)
        batch = next(trainer.dataloader_train)

        def terms(labelled, unlabelled, trainer=trainer, count=count):
            yield trainer.supervised(labelled)
            for _ in range(count):
                loss = trainer.predict(unlabelled.x_weak).square().mean()
                yield Term("split", loss / count, weight=3.0)

        trainer.terms = terms
        trainer.train_step(batch)
        means = trainer.records.means()
        logged.append((means["loss/split"], means["weight/split"]))
        weights.append(weights_of(trainer.bare_network))
    assert logged[1] == pytest.approx(logged[0]) and logged[0][1] == 3.0
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name])
