"""MixMatch for dense labels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from semi_nnunet.augment.invertible import GridView
from semi_nnunet.augment.mixing import TargetPatches, join_patches, sample_mixup_weight
from semi_nnunet.core.losses import pool_annotated, pool_target
from tests.methods.by_hand import dice_ce_by_hand
from tests.trainers import WITHOUT_RAMP, partially_annotated

NAME = "SemiMixMatchTrainer"


class LooksLeft(nn.Module):
    """A network that is not symmetric under flips: it uses each voxel and the one to its left."""

    def forward(self, x):
        return torch.cat([x, 2 * x.roll(1, -1), x**2, -x], 1)


def test_guess_is_averaged_in_the_patchs_own_frame(make_trainer):
    """Averaging before undoing the flip is the classic bug."""
    trainer = make_trainer(NAME, temperature=1.0)
    network = LooksLeft()
    trainer.companion("teacher").module = network
    x = torch.randn(2, 1, 6, 6)
    views = [GridView(), GridView((1,)), GridView((0,), (0, 1), 1)]
    guess = trainer.guess([view(x) for view in views], views)
    straight = network(x).softmax(1)
    flipped = network(x.flip(-1)).softmax(1).flip(-1)
    turned = network(x.rot90(1, (2, 3)).flip(2)).softmax(1).flip(2).rot90(-1, (2, 3))
    expected = (straight + flipped + turned) / 3
    torch.testing.assert_close(guess, expected)


def test_guess_is_sharpened(make_trainer):
    trainer = make_trainer(NAME, temperature=0.5)
    x = torch.randn(1, 1, 4, 4)
    trainer.companion("teacher").module = LooksLeft()
    p = LooksLeft()(x).softmax(1).double().numpy() ** 2
    guess = trainer.guess([x], [GridView()])
    np.testing.assert_allclose(guess.numpy(), p / p.sum(1, keepdims=True), rtol=1e-5)


@pytest.mark.parametrize("guesser", ["teacher", "student"])
def test_the_guesser_is_a_setting(guesser, make_trainer):
    trainer = make_trainer(NAME, guesser=guesser, **WITHOUT_RAMP)
    networks = []
    predict_with = trainer.predict_with
    trainer.predict_with = lambda network, x: (networks.append(network), predict_with(network, x))[
        1
    ]
    trainer.train_step(next(trainer.dataloader_train))
    expected = trainer.network if guesser == "student" else trainer.teacher
    assert len(networks) == 2 and all(network is expected for network in networks)


def test_mixup_gives_each_patch_the_larger_weight():
    torch.manual_seed(0)
    weights = np.array([sample_mixup_weight(0.75) for _ in range(2000)])
    assert weights.min() >= 0.5 and weights.max() <= 1
    drawn = np.random.default_rng(0).beta(0.75, 0.75, 20000)
    assert weights.mean() == pytest.approx(np.maximum(drawn, 1 - drawn).mean(), abs=0.01)


@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize("kind", ["labels", "regions_ignore"])
def test_both_terms_equal_a_slow_version(kind, partial, make_trainer, prepared_dataset):
    dataset = partially_annotated(prepared_dataset(kind, 1), kind) if partial else None
    trainer = make_trainer(NAME, kind=kind, dataset=dataset, mixing="mixup", **WITHOUT_RAMP)
    trainer.train_step(next(trainer.dataloader_train))
    labelled, unlabelled = trainer.on_device(next(trainer.dataloader_train)[0])
    views = [GridView((0,)), GridView((1,))]
    strong = [view(unlabelled.x_weak) * 1.1 for view in views]
    queue, strong_queue = iter(views), iter(strong)
    trainer.sample_view = lambda: next(queue)
    trainer.strong_view = lambda x: next(strong_queue)
    patches = len(labelled.x) + 2 * len(unlabelled.x_weak)
    partner, weight = torch.arange(patches).roll(2), 0.7
    trainer.sample_mix = lambda _: lambda x: weight * x + (1 - weight) * x[partner]
    _, mixed_labelled, *mixed_unlabelled = trainer.terms(labelled, unlabelled)
    guess = trainer.guess(strong, views)
    onehot, known = trainer.annotation(labelled.target)
    xs = [*labelled.x, *strong[0], *strong[1]]
    targets = [*onehot, *(g.flip(1) for g in guess), *(g.flip(2) for g in guess)]
    inside = unlabelled.mask
    masks = [*known, *(m.flip(1) for m in inside), *(m.flip(2) for m in inside)]

    def mixed(values):
        rows = [
            weight * values[i].double() + (1 - weight) * values[partner[i]].double()
            for i in range(patches)
        ]
        return torch.stack(rows)

    x, target = mixed(xs).float(), mixed(targets)
    mask = torch.stack([masks[i] & masks[partner[i]] for i in range(patches)])
    count, annotated = len(labelled.x), torch.ones(patches, target.shape[1], dtype=torch.bool)
    if partial:
        annotated[:count] = labelled.annotated
        assert not annotated.all()
    annotated = annotated & annotated[partner]  # by both patches
    with torch.no_grad():
        outputs = trainer.network(x[:count])
        prediction = trainer.probs(trainer.network(x[count:])[0]).double()
    expected = 0.0
    for output, factor in zip(outputs, trainer.loss.weight_factors, strict=True):
        if factor:
            small, inside = pool_target(target[:count], mask[:count], output.shape[2:])
            classes = annotated[:count] if partial else None
            expected += factor * dice_ce_by_hand(output, small, inside, trainer.exclusive, classes)
    assert mixed_labelled.value.item() == pytest.approx(expected, abs=1e-5)
    keep = mask[count:].expand_as(prediction)
    difference = prediction - target[count:]
    for patch, channel in (~annotated[count:]).nonzero().tolist():
        if trainer.exclusive:
            difference[patch, 0] += difference[patch, channel]
        difference[patch, channel] = 0
    expected = (difference**2)[keep].mean().item()
    assert len(mixed_unlabelled) == 2  # one view after the other
    total = sum(term.value.item() for term in mixed_unlabelled)
    assert total == pytest.approx(expected, abs=1e-5)
    assert {term.name for term in mixed_unlabelled} == {"mixed_unlabelled"}
    assert (mixed_labelled.weight, *{term.weight for term in mixed_unlabelled}) == (1.0, 10.0)


def test_a_box_keeps_the_annotated_classes_of_its_patch(make_trainer, prepared_dataset):
    trainer = make_trainer(NAME, dataset=partially_annotated(prepared_dataset()), **WITHOUT_RAMP)
    while True:
        labelled, unlabelled = trainer.on_device(next(trainer.dataloader_train)[0])
        if not labelled.annotated.all():
            break
    truth = TargetPatches(labelled.x, *trainer.annotation(labelled.target), labelled.annotated)
    target = torch.rand(len(unlabelled.x_weak), *truth.target.shape[1:]).softmax(1)
    patches = join_patches([truth, TargetPatches(unlabelled.x_weak, target, unlabelled.mask)])
    mix = trainer.sample_mix(patches.x)
    annotated = patches.mixed(mix, trainer.exclusive).annotated
    for patch, partner in enumerate(mix.partner.tolist()):
        inside = mix.box[patch, 0]
        for region, source in ((inside, partner), (~inside, patch)):
            is_guess = source >= len(labelled.x)
            classes = [True] * 4 if is_guess else labelled.annotated[source].tolist()
            for channel, expected in enumerate(classes):
                assert (annotated[patch, channel][region] == expected).all()
    half = pool_annotated(annotated, [edge // 2 for edge in patches.x.shape[2:]])
    shape = annotated.shape
    cells = annotated.view(*shape[:2], shape[2] // 2, 2, shape[3] // 2, 2)
    assert torch.equal(half, cells.all(5).all(3)) and not half.all()


def test_cutmix_instead_of_mixup(make_trainer):
    trainer = make_trainer(NAME, mixing="cutmix", **WITHOUT_RAMP)
    x = torch.rand(6, 1, 24, 24)
    mixed = trainer.sample_mix(x)(x)
    from_elsewhere = (mixed != x).float().mean().item()
    assert 0 < from_elsewhere <= (1 / 3) ** 2 + 0.01
    assert torch.isin(mixed, x).all()
    trainer.train_step(next(trainer.dataloader_train))


def test_quarter_turns_need_unlimited_rotation(make_trainer):
    limited = make_trainer(NAME, max_rotation_degrees=30.0)
    views = [limited.sample_view() for _ in range(40)]
    assert all(view.plane is None for view in views) and any(view.flips for view in views)
    free = make_trainer(NAME)
    assert any(free.sample_view().quarter_turns for _ in range(40))


def test_volumes_are_turned_only_as_labelled_patches_are(make_trainer, monkeypatch):
    trainer = make_trainer(NAME, "3d_fullres")
    assert trainer.turned_planes == []  # nnU-Net turns them by at most 30 degrees
    within_slices = ((-math.pi, math.pi), True, None, (0, 1, 2))
    del trainer.turned_planes
    monkeypatch.setattr(
        trainer, "configure_rotation_dummyDA_mirroring_and_inital_patch_size",
        lambda: within_slices,
    )  # fmt: skip
    assert trainer.turned_planes == [(1, 2)]


def test_no_geometric_view_if_orientation_matters(make_trainer):
    trainer = make_trainer(NAME, mirror=False)
    assert {trainer.sample_view() for _ in range(10)} == {GridView()}
    trainer = make_trainer(NAME)
    assert len({trainer.sample_view() for _ in range(60)}) > 4
