"""MixMatch for dense labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from semi_nnunet.augment.invertible import GridView
from semi_nnunet.augment.mixing import sample_mixup_weight
from semi_nnunet.methods.mixmatch import everywhere, pooled
from tests.methods.by_hand import dice_ce_by_hand
from tests.trainers import WITHOUT_RAMP, partially_annotated

NAME = "SemiMixMatchTrainer"


class LooksLeft(nn.Module):
    """Predicts each voxel from itself and the one to its left: not symmetric under flips."""

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
    expected = torch.zeros(2, 4, 6, 6)
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
    used = []
    predict_with = trainer.predict_with
    trainer.predict_with = lambda network, x: (used.append(network), predict_with(network, x))[1]
    trainer.train_step(next(trainer.dataloader_train))
    expected = trainer.network if guesser == "student" else trainer.teacher
    assert len(used) == 2 and all(network is expected for network in used)


def test_mixup_keeps_each_patch_the_larger_part():
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
    trainer.sample_mix = lambda like: lambda x: weight * x + (1 - weight) * x[partner]
    _, mixed_labelled, *mixed_unlabelled = trainer.terms(labelled, unlabelled)
    guess = trainer.guess(strong, views)
    onehot, annotated = trainer.annotation(labelled.target)
    xs = [*labelled.x, *strong[0], *strong[1]]
    targets = [*onehot, *(g.flip(1) for g in guess), *(g.flip(2) for g in guess)]
    inside = unlabelled.mask
    masks = [*annotated, *(m.flip(1) for m in inside), *(m.flip(2) for m in inside)]

    def mixed(parts):
        rows = [
            weight * parts[i].double() + (1 - weight) * parts[partner[i]].double()
            for i in range(patches)
        ]
        return torch.stack(rows)

    x, target = mixed(xs).float(), mixed(targets)
    mask = torch.stack([masks[i] & masks[partner[i]] for i in range(patches)])
    known, told = len(labelled.x), torch.ones(patches, target.shape[1], dtype=torch.bool)
    if partial:
        told[:known] = labelled.annotated
        assert not told.all()
    told = told & told[partner]  # of both parts
    with torch.no_grad():
        outputs = trainer.network(x[:known])
        prediction = trainer.probs(trainer.network(x[known:])[0]).double()
    expected = 0.0
    for output, factor in zip(outputs, trainer.loss.weight_factors, strict=True):
        if factor:
            small, most = pooled(target[:known], mask[:known], output.shape[2:])
            classes = told[:known] if partial else None
            expected += factor * dice_ce_by_hand(output, small, most, trainer.exclusive, classes)
    assert mixed_labelled.value.item() == pytest.approx(expected, abs=1e-5)
    keep = mask[known:].expand_as(prediction)
    difference = prediction - target[known:]
    for patch, channel in (~told[known:]).nonzero().tolist():
        if trainer.exclusive:
            difference[patch, 0] += difference[patch, channel]
        difference[patch, channel] = 0
    expected = (difference**2)[keep].mean().item()
    assert len(mixed_unlabelled) == 2  # one view after the other
    found = sum(term.value.item() for term in mixed_unlabelled)
    assert found == pytest.approx(expected, abs=1e-5)
    assert {term.name for term in mixed_unlabelled} == {"mixed_unlabelled"}
    assert (mixed_labelled.weight, *{term.weight for term in mixed_unlabelled}) == (1.0, 10.0)


def test_a_box_takes_along_which_classes_its_patch_annotates(make_trainer, prepared_dataset):
    trainer = make_trainer(NAME, dataset=partially_annotated(prepared_dataset()), **WITHOUT_RAMP)
    while True:
        labelled, unlabelled = trainer.on_device(next(trainer.dataloader_train)[0])
        if not labelled.annotated.all():
            break
    x = torch.cat([labelled.x, unlabelled.x_weak])
    mix = trainer.sample_mix(x)
    told = trainer.mixed_annotation(labelled, x, mix)
    for patch, partner in enumerate(mix.partner.tolist()):
        inside = mix.box[patch, 0]
        for part, source in ((inside, partner), (~inside, patch)):
            guessed = source >= len(labelled.x)
            classes = [True] * 4 if guessed else labelled.annotated[source].tolist()
            for channel, known in enumerate(classes):
                assert (told[patch, channel][part] == known).all()
    half = everywhere(told, torch.Size(edge // 2 for edge in x.shape[2:]))
    cells = told.view(*told.shape[:2], told.shape[2] // 2, 2, told.shape[3] // 2, 2)
    assert torch.equal(half, cells.all(5).all(3)) and not half.all()


def test_soft_targets_are_averaged_for_deep_supervision():
    target = torch.rand(2, 3, 8, 6).softmax(1)
    everywhere = torch.ones(2, 1, 8, 6, dtype=torch.bool)
    small, most = pooled(target, everywhere, torch.Size((4, 3)))
    expected = target.view(2, 3, 4, 2, 3, 2).mean((3, 5))
    torch.testing.assert_close(small, expected)
    torch.testing.assert_close(small.sum(1), torch.ones(2, 4, 3))
    assert most.all()


def test_ignored_voxels_have_no_part_in_the_average():
    target, mask = torch.zeros(1, 2, 2, 2), torch.ones(1, 1, 2, 2, dtype=torch.bool)
    target[0, 1] = 1.0
    target[0, :, 0, 0], mask[0, 0, 0, 0] = torch.tensor([1.0, 0.0]), False  # ignored: "background"
    small, most = pooled(target, mask, torch.Size((1, 1)))
    assert small.flatten().tolist() == pytest.approx([0.0, 1.0]) and most.all()
    mask[0, 0, 0] = mask[0, 0, 1, 0] = False
    assert not pooled(target, mask, torch.Size((1, 1)))[1].any()


def test_cutmix_instead_of_mixup(make_trainer):
    trainer = make_trainer(NAME, mixing="cutmix", **WITHOUT_RAMP)
    x = torch.rand(6, 1, 24, 24)
    mixed = trainer.sample_mix(x)(x)
    from_elsewhere = (mixed != x).float().mean().item()
    assert 0 < from_elsewhere <= (1 / 3) ** 2 + 0.01
    assert torch.isin(mixed, x).all()
    trainer.train_step(next(trainer.dataloader_train))


def test_quarter_turns_only_where_turns_are_not_limited(make_trainer):
    limited = make_trainer(NAME, max_rotation_degrees=30.0)
    views = [limited.sample_view() for _ in range(40)]
    assert all(view.plane is None for view in views) and any(view.flips for view in views)
    free = make_trainer(NAME)
    assert any(free.sample_view().quarter_turns for _ in range(40))


def test_no_geometric_view_where_orientation_carries_meaning(make_trainer):
    trainer = make_trainer(NAME, mirror=False)
    assert {trainer.sample_view() for _ in range(10)} == {GridView()}
    trainer = make_trainer(NAME)
    assert len({trainer.sample_view() for _ in range(60)}) > 4
