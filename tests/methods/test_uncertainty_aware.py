"""UA-MT: the uncertainty, its threshold, and the voxels that do not count."""

from __future__ import annotations

import math

import pytest
import torch

from semi_nnunet.core.consistency import probability_dice_loss
from tests.trainers import WITHOUT_RAMP

NAME = "SemiUncertaintyAwareTrainer"


@pytest.mark.parametrize(("kind", "largest"), [("labels", math.log(4)), ("regions", math.log(2))])
def test_threshold_rises_from_three_quarters_of_the_largest_entropy_to_all_of_it(
    kind, largest, make_trainer
):
    trainer = make_trainer(NAME, kind=kind)
    channels = trainer.label_manager.num_segmentation_heads
    trainer.current_epoch = 0
    start = 0.75 + 0.25 * math.exp(-5)
    assert trainer.threshold(channels) == pytest.approx(start * largest)
    trainer.current_epoch = trainer.num_epochs
    assert trainer.threshold(channels) == pytest.approx(largest)


def test_uncertainty_is_the_entropy_of_the_mean_of_the_passes(make_trainer):
    trainer = make_trainer(NAME, stochastic_passes=3)
    _, unlabelled = trainer.on_device(next(trainer.dataloader_train)[0])
    passes = [torch.rand((2, 4, 24, 24)).softmax(1) for _ in range(3)]
    queue = iter(passes)
    trainer.noisy_probs = lambda teacher, x: next(queue).clone()
    mean = sum(passes) / 3
    expected = -(mean * (mean + 1e-6).log()).sum(1, keepdim=True)
    torch.testing.assert_close(trainer.uncertainty(unlabelled.x_weak), expected)


def test_passes_differ_through_noise_and_through_dropout(make_trainer):
    for setting in ({"dropout": 0.0}, {"teacher_noise": 0.0}):
        trainer = make_trainer(NAME, stochastic_passes=2, **setting)
        _, unlabelled = trainer.on_device(next(trainer.dataloader_train)[0])
        seen = []
        original = trainer.probs
        trainer.probs = lambda logits, keep=seen, f=original: keep.append(f(logits)) or keep[-1]
        trainer.uncertainty(unlabelled.x_weak)
        assert len(seen) == 2 and not torch.equal(*seen), setting
        x = unlabelled.x_weak
        assert torch.equal(trainer.teacher_probs(x), trainer.teacher_probs(x))  # without either


def test_noise_is_added_to_the_image_only(make_trainer):
    trainer = make_trainer("SemiUncertaintyAwareTrainer")
    x = torch.zeros(2, 3, 8, 8)  # an image, and two channels of a cascade's first stage
    noisy = trainer.add_teacher_noise(x)
    assert noisy[:, :1].std() > 0 and torch.equal(noisy[:, 1:], x[:, 1:])
    assert torch.equal(trainer.image_of(x), x[:, :1])


def test_voxels_above_the_threshold_do_not_count(make_trainer):
    trainer = make_trainer(NAME, cutmix_probability=0.0, **WITHOUT_RAMP)
    labelled, unlabelled = trainer.on_device(next(trainer.dataloader_train)[0])
    unsure = torch.zeros((2, 1, 24, 24))
    unsure[:, :, :12] = 1e9
    trainer.uncertainty = lambda x: unsure
    target = trainer.teacher_probs(unlabelled.x_weak)
    trainer.noisy_probs = lambda teacher, x: target
    _, consistency = trainer.terms(labelled, unlabelled)
    prediction = trainer.probs(trainer.predict(unlabelled.x_strong))
    counted = unlabelled.mask & (unsure == 0)
    expected = ((prediction - target) ** 2)[counted.expand_as(target)].mean()
    expected += 0.1 * probability_dice_loss(prediction * counted, target * counted)
    torch.testing.assert_close(consistency.value, expected)
    ratio = trainer.records.means()["mask_ratio"]
    assert ratio == pytest.approx((counted.sum() / unlabelled.mask.sum()).item())
