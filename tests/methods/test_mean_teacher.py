"""The Mean Teacher."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from semi_nnunet.augment.mixing import sample_box_mix
from tests.trainers import WITHOUT_RAMP, weights_of

NAME = "SemiMeanTeacherTrainer"


def consistency_by_hand(trainer, unlabelled, mix, kind) -> float:
    """Return the consistency loss of a voxelwise loop, in double precision."""
    trainer.network.eval()
    with torch.no_grad():
        teacher = trainer.probs(trainer.teacher(unlabelled.x_weak)[0]).numpy()
        student = trainer.probs(trainer.network(mix(unlabelled.x_strong))[0]).numpy()
    box, partner = mix.box.numpy(), mix.partner.numpy()
    inside = unlabelled.mask.numpy()
    difference, size, count = np.zeros(student.shape[1]), np.ones(student.shape[1]), 0
    squares, total = np.zeros(student.shape[1]), np.zeros(student.shape[1])
    for sample, channels in enumerate(student):
        for y, x in np.ndindex(channels.shape[1:]):
            source = partner[sample] if box[sample, 0, y, x] else sample
            if inside[source, 0, y, x]:
                p, q = channels[:, y, x].astype(float), teacher[source, :, y, x].astype(float)
                difference += (p - q) ** 2
                size += p**2 + q**2
                squares, total, count = squares + q**2, total + q, count + 1
    dice = (squares / total * difference / size)[1 if kind == "labels" else 0 :]
    return difference.sum() / (count * len(size)) + 0.1 * dice.mean()


@pytest.mark.parametrize("kind", ["labels", "regions"])
def test_consistency_equals_a_voxelwise_loop(kind, make_trainer):
    trainer = make_trainer(NAME, kind=kind, **WITHOUT_RAMP)
    trainer.train_step(next(trainer.dataloader_train))
    labelled, unlabelled = trainer.on_device(next(trainer.dataloader_train)[0])
    torch.manual_seed(3)
    supervised, consistency = trainer.terms(labelled, unlabelled)
    assert (supervised.name, supervised.ramped) == ("supervised", False)
    torch.manual_seed(3)
    mix = sample_box_mix(trainer.teacher_probs(unlabelled.x_weak), 2 / 3, 1.0)
    by_hand = consistency_by_hand(trainer, unlabelled, mix, kind)
    assert consistency.value.item() == pytest.approx(by_hand, abs=1e-5)
    assert consistency.weight == 10.0 and consistency.ramped


def test_the_teacher_is_the_moving_average_of_the_students(make_trainer):
    trainer = make_trainer(NAME, ema_decay=0.6, steps_per_epoch=6)
    expected = None
    for step in range(5):
        trainer.train_step(next(trainer.dataloader_train))
        student = weights_of(trainer.bare_network)
        a = min(1 - 1 / (step + 1), 0.6)
        if expected is None:
            expected = student
        else:
            expected = {key: a * expected[key] + (1 - a) * student[key] for key in student}
    for key, value in weights_of(trainer.companion("teacher").module).items():
        torch.testing.assert_close(value, expected[key])


def test_the_decay_can_rise_after_the_ramp(make_trainer):
    trainer = make_trainer(
        NAME, ema_decay=0.5, ema_decay_after_ramp_up=0.9, unlabelled_start_steps=4, ramp_up_steps=10
    )
    used = []
    trainer.companion("teacher").update = lambda student, step, decay: used.append(decay)
    for step in (0, 9, 10, 11):
        trainer.after_optimizer_step(step)
    assert used == [0.5, 0.5, 0.9, 0.9]


def test_the_classical_variant_adds_noise_only_for_the_teacher(make_trainer):
    trainer = make_trainer(
        NAME,
        cutmix_probability=0.0,
        appearance_strength=0.0,
        teacher_noise=0.1,
        consistency_dice=0.0,
        **WITHOUT_RAMP,
    )
    labelled, unlabelled = trainer.on_device(next(trainer.dataloader_train)[0])
    seen = {}
    teacher = trainer.companion("teacher").module
    trainer.network.register_forward_pre_hook(lambda m, args: seen.update(student=args[0]))
    teacher.register_forward_pre_hook(lambda m, args: seen.update(teacher=args[0]))
    _, consistency = trainer.terms(labelled, unlabelled)
    assert torch.equal(seen["student"], unlabelled.x_weak)
    noise = seen["teacher"] - unlabelled.x_weak
    assert 0.05 < noise.std() < 0.12 and noise.abs().max() <= 0.2 + 1e-5
    student = trainer.probs(trainer.predict(seen["student"]))
    squared = (student - trainer.teacher_probs(seen["teacher"])) ** 2
    squared = squared[unlabelled.mask.expand_as(squared)]
    assert consistency.value.item() == pytest.approx(squared.mean().item(), rel=1e-5)


def test_the_teacher_is_deployed(make_trainer):
    trainer = make_trainer(NAME)
    assert trainer.prediction_network() is trainer.companion("teacher").module
    with trainer.as_network(trainer.prediction_network()):
        assert trainer.network is trainer.companion("teacher").module
    assert trainer.network is trainer.bare_network
