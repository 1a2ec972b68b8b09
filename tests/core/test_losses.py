"""Dice with cross-entropy or focal loss, against nnU-Net's own and against a hand-written one."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from torch import nn

from semi_nnunet.core import losses, processes
from semi_nnunet.core.losses import DiceAndVoxelLoss, onehot_and_mask, pool_target
from semi_nnunet.util.errors import UserError

CHANNELS = 3
IGNORED = 3
SPATIAL = {"2d": (7, 6), "3d": (4, 5, 3)}


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(1)


def example(
    regions: bool, ignore: bool, spatial: tuple[int, ...]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Random logits and a target in nnU-Net's convention."""
    logits = 2 * torch.randn(2, CHANNELS, *spatial)
    if regions:
        target = (torch.rand(2, CHANNELS + ignore, *spatial) < 0.4).float()
    else:
        target = torch.randint(0, CHANNELS + ignore, (2, 1, *spatial)).float()
    return logits, target


def nnunet_loss(regions: bool, ignore: bool, batch_dice: bool) -> nn.Module:
    """As ``nnUNetTrainer._build_loss`` makes it."""
    dice = {"batch_dice": batch_dice, "smooth": 1e-5, "do_bg": regions, "ddp": False}
    if regions:
        return DC_and_BCE_loss(
            {}, dice, use_ignore_label=ignore, dice_class=MemoryEfficientSoftDiceLoss
        )
    ignore_label = IGNORED if ignore else None
    return DC_and_CE_loss(
        dice, {}, ignore_label=ignore_label, dice_class=MemoryEfficientSoftDiceLoss
    )


def our_loss(regions: bool, ignore: bool, batch_dice: bool = False, **options) -> DiceAndVoxelLoss:
    return DiceAndVoxelLoss(regions, IGNORED if ignore else None, batch_dice, **options)


def value_and_gradient(loss: nn.Module, logits: torch.Tensor, target: torch.Tensor):
    logits = logits.clone().requires_grad_()
    value = loss(logits, target)
    return value.detach(), torch.autograd.grad(value, logits)[0]


@pytest.mark.parametrize("spatial", SPATIAL.values(), ids=SPATIAL)
@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("ignore", [False, True])
@pytest.mark.parametrize("regions", [False, True])
def test_without_focus_and_weights_it_is_nnunets_loss(regions, ignore, batch_dice, spatial):
    logits, target = example(regions, ignore, spatial)
    theirs = value_and_gradient(nnunet_loss(regions, ignore, batch_dice), logits, target)
    ours = value_and_gradient(our_loss(regions, ignore, batch_dice), logits, target)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("regions", [False, True])
def test_equal_weights_change_nothing(regions):
    logits, target = example(regions, True, (5, 5))
    plain = value_and_gradient(our_loss(regions, True), logits, target)
    weighted = our_loss(regions, True, class_weights=[7.0] * CHANNELS)
    torch.testing.assert_close(value_and_gradient(weighted, logits, target), plain)


@pytest.mark.parametrize("regions", [False, True])
def test_weights_count_relative_to_each_other(regions):
    logits, target = example(regions, False, (5, 5))
    once = our_loss(regions, False, focal_gamma=2, class_weights=[1, 2, 4])
    tenfold = our_loss(regions, False, focal_gamma=2, class_weights=[10, 20, 40])
    torch.testing.assert_close(once(logits, target), tenfold(logits, target))


@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_a_weight_of_zero_removes_a_class(gamma, batch_dice):
    """Its voxels may have any label; its logit only acts through the softmax."""
    logits, target = example(False, False, (6, 6))
    loss = our_loss(False, False, batch_dice, focal_gamma=gamma, class_weights=[1, 1, 0])
    voxels = (target == 2).expand_as(logits)
    onehot = nn.functional.one_hot(target[:, 0].long(), CHANNELS).movedim(-1, 1).float()
    value, _ = value_and_gradient(our_voxel_loss(loss), logits, target)
    moved = logits + 5 * torch.randn_like(logits) * voxels
    assert torch.equal(our_voxel_loss(loss)(moved, target), value)
    without = -dice_of_class(logits.softmax(1)[:, 1], onehot[:, 1], batch_dice)
    torch.testing.assert_close(loss(logits, target) - value, without)


def our_voxel_loss(loss: DiceAndVoxelLoss) -> nn.Module:
    class VoxelPart(nn.Module):
        def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            onehot, mask = onehot_and_mask(target, logits.shape[1], loss.regions, loss.ignore_label)
            weights = loss.class_weights()
            weights = torch.ones(logits.shape[1]) if weights is None else weights
            return loss._voxel_loss(logits, onehot, mask, weights)

    return VoxelPart()


def dice_of_class(probs: torch.Tensor, onehot: torch.Tensor, batch_dice: bool) -> torch.Tensor:
    """Soft Dice of (B, *spatial) with nnU-Net's smoothing."""
    axes = tuple(range(0 if batch_dice else 1, probs.ndim))
    intersection, total = (probs * onehot).sum(axes), (probs + onehot).sum(axes)
    return ((2 * intersection + 1e-5) / (total + 1e-5)).mean()


def test_a_weight_of_zero_removes_a_region():
    logits, target = example(True, True, (6, 6))
    loss = our_loss(True, True, focal_gamma=2, class_weights=[1, 0, 3])
    value, gradient = value_and_gradient(loss, logits, target)
    assert not gradient[:, 1].any() and gradient[:, 0].any()
    target[:, 1] = 1 - target[:, 1]
    assert torch.equal(loss(logits, target), value)


def test_a_weight_only_on_the_background_leaves_no_dice_and_stays_finite():
    logits, target = example(False, False, (6, 6))
    loss = our_loss(False, False, class_weights=[1, 0, 0])
    value, gradient = value_and_gradient(loss, logits, target)
    assert value.isfinite() and gradient.isfinite().all()


@pytest.mark.parametrize("weights", [[0, 0, 0], [1, -1, 1], []])
def test_weights_that_are_negative_or_all_zero_are_refused(weights):
    with pytest.raises(UserError, match="class_weights"):
        our_loss(False, False, class_weights=weights)


def test_weighted_cross_entropy_is_torchs():
    logits, target = example(False, True, (6, 6))
    weights = torch.tensor([0.5, 1.0, 3.0])
    loss = our_loss(False, True, class_weights=weights.tolist())
    theirs = nn.CrossEntropyLoss(weights, ignore_index=IGNORED)
    torch.testing.assert_close(
        our_voxel_loss(loss)(logits, target), theirs(logits, target[:, 0].long())
    )


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 3.5])
@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 6.0]])
def test_focal_loss_of_classes_equals_a_hand_written_one(gamma, weights):
    logits, target = example(False, True, (5, 4))
    probs = torch.softmax(logits, 1)
    total, count = 0.0, 0.0
    for b in range(2):
        for i in range(5):
            for j in range(4):
                label = int(target[b, 0, i, j])
                if label == IGNORED:
                    continue
                p = probs[b, label, i, j]
                weight = 1.0 if weights is None else weights[label] / 3
                total, count = total - weight * (1 - p) ** gamma * p.log(), count + weight
    loss = our_loss(False, True, focal_gamma=gamma, class_weights=weights)
    torch.testing.assert_close(our_voxel_loss(loss)(logits, target), total / count)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss_of_regions_equals_a_hand_written_one(gamma):
    logits, target = example(True, False, (5, 4))
    p = torch.sigmoid(logits)
    p = torch.where(target == 1, p, 1 - p)
    expected = (-((1 - p) ** gamma) * p.log()).mean()
    value = our_voxel_loss(our_loss(True, False, focal_gamma=gamma))(logits, target)
    torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("gamma", [0.0, 2.0])
@pytest.mark.parametrize("batch_dice", [False, True])
def test_ignored_voxels_do_not_influence_the_loss(regions, gamma, batch_dice):
    logits, target = example(regions, True, (6, 6))
    loss = our_loss(regions, True, batch_dice, focal_gamma=gamma, class_weights=[1, 2, 3])
    value, gradient = value_and_gradient(loss, logits, target)
    ignored = target[:, -1:] == 1 if regions else target == IGNORED
    assert not gradient[ignored.expand_as(gradient)].any()
    moved = torch.where(ignored, 5 * torch.randn_like(logits), logits)
    torch.testing.assert_close(loss(moved, target), value)


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_a_batch_that_is_ignored_entirely_gives_no_gradient(regions, gamma):
    logits, target = example(regions, True, (4, 4))
    if regions:
        target[:, -1] = 1
    else:
        target[:] = IGNORED
    value, gradient = value_and_gradient(our_loss(regions, True, focal_gamma=gamma), logits, target)
    assert value.isfinite() and not gradient.any()


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("sign", [1, -1])
def test_saturated_logits_give_finite_values_and_gradients(regions, gamma, sign):
    _, target = example(regions, False, (4, 4))
    labels = target.long()
    onehot = labels if regions else torch.zeros(2, CHANNELS, 4, 4).scatter_(1, labels, 1)
    logits = sign * 400.0 * (onehot - 0.5)
    value, gradient = value_and_gradient(
        our_loss(regions, False, focal_gamma=gamma), logits, target
    )
    assert value.isfinite() and gradient.isfinite().all()


@pytest.mark.parametrize("regions", [False, True])
def test_a_perfect_prediction_has_the_smallest_loss(regions):
    _, target = example(regions, False, (6, 6))
    labels = target.long()
    onehot = labels if regions else torch.zeros(2, CHANNELS, 6, 6).scatter_(1, labels, 1)
    perfect = our_loss(regions, False, focal_gamma=2)(100.0 * (onehot - 0.5), target)
    assert perfect.item() == pytest.approx(-1, abs=1e-4)


def test_the_focus_lowers_the_loss_of_easy_voxels_most():
    target = torch.zeros(1, 1, 1, 2)
    easy, hard = torch.tensor([3.0, -3.0]), torch.tensor([-1.0, 1.0])
    logits = torch.stack([easy, hard], 1).view(1, 2, 1, 2)
    target_of = [target[..., :1], target[..., 1:]]
    ratio = [
        (
            our_voxel_loss(DiceAndVoxelLoss(False, focal_gamma=2))(z, label)
            / our_voxel_loss(DiceAndVoxelLoss(False))(z, label)
        ).item()
        for z, label in zip(logits.split(1, -1), target_of, strict=True)
    ]
    assert ratio[0] < ratio[1] / 100


def test_half_precision_logits_are_computed_in_float32():
    logits, target = example(False, False, (4, 4))
    value = our_loss(False, False)(logits.half(), target.short())
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, our_loss(False, False)(logits.half().float(), target))


def test_class_weights_can_be_passed_with_the_batch():
    logits, target = example(False, False, (6, 5))
    onehot, mask = onehot_and_mask(target, CHANNELS, False, None)
    weights = torch.tensor([0.5, 1.6, 0.4])  # those of the classes that have a Dice: mean 1
    weighted = our_loss(False, False).masked(logits, onehot, mask, weights)
    constant = our_loss(False, False, class_weights=weights.tolist())
    torch.testing.assert_close(weighted, constant(logits, target))
    voxels = constant._voxel_loss(logits, onehot, mask.float(), weights)
    twice = our_loss(False, False).masked(logits, onehot, mask, 2 * weights)
    torch.testing.assert_close(
        twice, voxels + 2 * (weighted - voxels)
    )  # only the Dice grows with them


# ---- partial labels ----

ANNOTATED = torch.tensor([[True, True, False], [True, True, True], [True, False, True]])


def partial_example(
    regions: bool, ignore: bool, spatial: tuple[int, ...]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return logits, a target without unannotated classes, and the annotated classes."""
    logits = 2 * torch.randn(3, CHANNELS, *spatial)
    annotated = ANNOTATED.clone()
    if regions:
        annotated[2, 0] = False
        target = (torch.rand(3, CHANNELS + ignore, *spatial) < 0.4).float()
        target[:, :CHANNELS] *= annotated.view(3, CHANNELS, *[1] * len(spatial))
    else:
        target = torch.randint(0, CHANNELS + ignore, (3, 1, *spatial)).float()
        for sample in range(3):
            for label in range(CHANNELS):
                if not annotated[sample, label]:
                    target[sample][target[sample] == label] = 0
    return logits, target, annotated


def marginal_loss_by_hand(
    logits: torch.Tensor,
    target: torch.Tensor,
    annotated: torch.Tensor,
    regions: bool,
    ignore: bool,
    batch_dice: bool,
    gamma: float = 0.0,
) -> float:
    """Compute Shi et al.'s marginal loss voxel by voxel, class by class, in double precision."""
    z, t, annotates = logits.double().numpy(), target.numpy(), annotated.numpy()
    samples, classes = z.shape[:2]
    entropy, counted, sizes = 0.0, 0, np.zeros((3, samples, classes))
    for sample, *voxel in np.ndindex(samples, *z.shape[2:]):
        index = (sample, slice(None), *voxel)
        if ignore and (t[index][-1] == 1 if regions else t[index][0] == IGNORED):
            continue
        if regions:
            p = 1 / (1 + np.exp(-z[index]))
            for region in range(classes):
                if annotates[sample, region]:
                    right = p[region] if t[index][region] else 1 - p[region]
                    entropy -= (1 - right) ** gamma * np.log(right)
                    counted += not ignore  # nnU-Net: with an ignore label a sum over the regions
            counted += ignore
            truth = t[index][:classes]
        else:
            p = np.exp(z[index] - z[index].max())
            p /= p.sum()
            label = int(t[index][0])
            right = p[label]
            if label == 0:  # background, or anything that this case does not annotate
                right = sum(p[c] for c in range(classes) if c == 0 or not annotates[sample, c])
            entropy -= (1 - right) ** gamma * np.log(right)
            counted += 1
            truth = np.eye(classes)[label]
        sizes[:, sample] += [p * truth, p, truth]
    first = 0 if regions else 1
    groups = [range(samples)] if batch_dice else [[sample] for sample in range(samples)]
    means = []
    for group in groups:
        dice = []
        for c in range(first, classes):
            seen = [sample for sample in group if annotates[sample, c]]
            if seen:
                overlap, predicted, true = sizes[:, seen, c].sum(1)
                dice.append((2 * overlap + 1e-5) / (predicted + true + 1e-5))
        means.append(np.mean(dice) if dice else 0.0)
    return entropy / counted - float(np.mean(means))


@pytest.mark.parametrize("spatial", SPATIAL.values(), ids=SPATIAL)
@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("ignore", [False, True])
@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_partial_labels_give_the_marginal_loss_by_hand(regions, ignore, batch_dice, spatial, gamma):
    logits, target, annotated = partial_example(regions, ignore, spatial)
    loss = our_loss(regions, ignore, batch_dice, focal_gamma=gamma)
    expected = marginal_loss_by_hand(logits, target, annotated, regions, ignore, batch_dice, gamma)
    assert loss(logits, target, annotated).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("ignore", [False, True])
@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("weights", [None, [1, 2, 4]])
def test_the_loss_is_unchanged_bit_for_bit_if_all_classes_are_annotated(
    regions, ignore, batch_dice, weights
):
    logits, target = example(regions, ignore, (6, 5))
    loss = our_loss(regions, ignore, batch_dice, focal_gamma=1, class_weights=weights)
    everything = torch.ones(2, CHANNELS, dtype=torch.bool)
    plain = value_and_gradient(loss, logits, target)
    partial = value_and_gradient(lambda z, t: loss(z, t, everything), logits, target)
    assert torch.equal(plain[0], partial[0])
    torch.testing.assert_close(plain[1], partial[1])


@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_background_and_a_class_that_is_not_annotated_are_one(gamma, batch_dice):
    """Probability that moves between them changes nothing, and neither is preferred."""
    logits, target, _ = partial_example(False, True, (6, 6))
    annotated = ANNOTATED[:1].expand(3, -1)  # class 2 is never annotated
    target[target == 2] = 0
    loss = our_loss(False, True, batch_dice, focal_gamma=gamma)
    probs = logits.softmax(1)
    share = torch.rand(3, 6, 6)
    total = probs[:, 0] + probs[:, 2]
    moved = torch.stack([share * total, probs[:, 1], (1 - share) * total], 1).log()
    torch.testing.assert_close(loss(moved, target, annotated), loss(logits, target, annotated))
    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(loss(logits, target, annotated), logits)
    slope = gradient[:, 0] / probs[:, 0] - gradient[:, 2] / probs[:, 2]
    assert slope.abs().max() < 1e-4 and gradient[:, 1].abs().max() > 1e-3


@pytest.mark.parametrize("batch_dice", [False, True])
def test_regions_that_are_not_annotated_receive_no_gradient(batch_dice):
    logits, target, annotated = partial_example(True, True, (6, 6))
    loss = our_loss(True, True, batch_dice, focal_gamma=2)
    _, gradient = value_and_gradient(lambda z, t: loss(z, t, annotated), logits, target)
    assert (gradient.flatten(2).any(2) == annotated).all()


def test_a_class_that_no_sample_annotates_has_no_effect():
    logits, target, _ = partial_example(False, False, (6, 6))
    target[target == 2] = 0
    never = ANNOTATED[:1].expand(3, -1)
    weights = torch.tensor([1.0, 1.0, 5.0])
    merged = torch.stack([torch.logsumexp(logits[:, [0, 2]], 1), logits[:, 1]], 1)
    two = our_loss(False, False, True, class_weights=[1, 1])(merged, target)
    three = our_loss(False, False, True)(logits, target, never)
    torch.testing.assert_close(three, two)
    onehot, mask = onehot_and_mask(target, CHANNELS, False, None)
    weighted = our_loss(False, False, True).masked(logits, onehot, mask, weights, never)
    assert weighted.isfinite()


class ThreadSum:
    """Sums the values of threads; each thread represents a process."""

    def __init__(self, count: int):
        self.barrier, self.values = threading.Barrier(count), {}

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        self.values[threading.get_ident()] = x
        self.barrier.wait(20)
        total = sum(self.values[key] for key in sorted(self.values))
        self.barrier.wait(20)
        return total


@pytest.mark.parametrize("regions", [False, True])
def test_processes_that_share_a_batch_have_its_loss(regions, monkeypatch):
    """Only one of them has a case that annotates all classes."""
    logits, target, annotated = partial_example(regions, False, (6, 5))
    logits, target, annotated = (
        torch.cat([rows, rows[1:2]]) for rows in (logits, target, annotated)
    )
    halves = [torch.tensor([0, 2]), torch.tensor([1, 3])]
    loss, add = our_loss(regions, False, True), ThreadSum(2)
    whole = loss(logits, target, annotated)
    monkeypatch.setattr(processes, "has_other_processes", lambda: True)
    for module in (processes, losses):
        monkeypatch.setattr(module, "all_reduce_sum", add)
    with ThreadPoolExecutor(2) as pool:
        values = pool.map(lambda i: loss(logits[i], target[i], annotated[i]), halves)
        mean = torch.stack(list(values)).mean()
    torch.testing.assert_close(mean, whole)


# ---- soft targets of lower resolution ----


def test_soft_targets_are_averaged():
    target = torch.rand(2, 3, 8, 6).softmax(1)
    small, inside = pool_target(target, torch.ones(2, 1, 8, 6, dtype=torch.bool), (4, 3))
    torch.testing.assert_close(small, target.view(2, 3, 4, 2, 3, 2).mean((3, 5)))
    torch.testing.assert_close(small.sum(1), torch.ones(2, 4, 3))
    assert inside.all()


def test_ignored_voxels_are_not_averaged():
    target, mask = torch.zeros(1, 2, 2, 2), torch.ones(1, 1, 2, 2, dtype=torch.bool)
    target[0, 1] = 1.0
    target[0, :, 0, 0], mask[0, 0, 0, 0] = torch.tensor([1.0, 0.0]), False
    small, inside = pool_target(target, mask, (1, 1))
    assert small.flatten().tolist() == pytest.approx([0.0, 1.0]) and inside.all()
    mask[0, 0, 0] = mask[0, 0, 1, 0] = False
    assert not pool_target(target, mask, (1, 1))[1].any()


def test_the_loss_of_all_scales_is_the_weighted_sum():
    loss, annotated = DiceAndVoxelLoss(False), torch.tensor([[True, True, False]] * 2)
    target, mask = torch.rand(2, 3, 8, 6).softmax(1), torch.rand(2, 1, 8, 6) > 0.2
    outputs = [torch.randn(2, 3, 8, 6), torch.randn(2, 3, 4, 3)]
    total = loss.masked_at_scales(outputs, (0.7, 0.3), target, mask, annotated)
    large = loss.masked(outputs[0], target, mask, annotated=annotated)
    small = loss.masked(outputs[1], *pool_target(target, mask, (4, 3)), annotated=annotated)
    torch.testing.assert_close(total, 0.7 * large + 0.3 * small)
    assert loss.masked_at_scales(outputs[0], (), target, mask, annotated) == large
