"""The distance between student and teacher."""

import itertools

import pytest
import torch

from semi_nnunet.core import consistency
from semi_nnunet.core.consistency import masked_mean, probability_dice_loss, probability_mse

SHAPES = [(2, 3, 4, 5), (2, 2, 3, 4, 3)]


def probabilities(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.softmax(torch.randn(shape), 1)


def dice_loss_by_hand(prediction: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> list:
    """1 - 2 sum p q / (sum p^2 + sum q^2) of each class; a voxel is added to the denominator."""
    losses = []
    batch, classes, *spatial = prediction.shape
    for c in range(classes):
        shared, size, squares, total = 0.0, 0.0, 0.0, 0.0
        for b, *voxel in itertools.product(range(batch), *map(range, spatial)):
            if mask[(b, 0, *voxel)]:
                p, q = prediction[(b, c, *voxel)].item(), target[(b, c, *voxel)].item()
                shared, size = shared + 2 * p * q, size + p**2 + q**2
                squares, total = squares + q**2, total + q
        losses.append(squares / total * (size - shared) / (size + 1))
    return losses


def by_hand(prediction: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> float:
    """Voxel by voxel, class by class."""
    total, count = 0.0, 0
    batch, classes, *spatial = prediction.shape
    for b, *voxel in itertools.product(range(batch), *map(range, spatial)):
        if not mask[(b, 0, *voxel)]:
            continue
        for c in range(classes):
            difference = prediction[(b, c, *voxel)].item() - target[(b, c, *voxel)].item()
            total, count = total + difference**2, count + 1
    return total / count


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("shape", SHAPES)
def test_probability_mse_equals_a_loop_over_voxels(shape):
    prediction, target = probabilities(shape), probabilities(shape)
    mask = torch.rand(shape[0], 1, *shape[2:]) < 0.6
    everywhere = torch.ones_like(mask)
    hand = by_hand(prediction, target, mask)
    assert probability_mse(prediction, target, mask).item() == pytest.approx(hand, rel=1e-5)
    hand = by_hand(prediction, target, everywhere)
    assert probability_mse(prediction, target).item() == pytest.approx(hand, rel=1e-5)
    assert probability_mse(prediction, target, everywhere).item() == pytest.approx(hand, rel=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_probability_dice_loss_equals_a_loop_over_voxels(shape):
    prediction, target = probabilities(shape), probabilities(shape)
    mask = torch.rand(shape[0], 1, *shape[2:]) < 0.6
    background, *foreground = dice_loss_by_hand(prediction, target, mask)
    mean = sum(foreground) / len(foreground)
    loss = probability_dice_loss(prediction, target, mask)
    assert loss.item() == pytest.approx(mean, rel=1e-5)
    mean = (background + sum(foreground)) / (1 + len(foreground))
    loss = probability_dice_loss(prediction, target, mask, exclusive=False)
    assert loss.item() == pytest.approx(mean, rel=1e-5)


def test_a_small_organ_that_is_missed_costs_as_much_as_a_large_one():
    def missed(voxels: int) -> float:
        target = torch.zeros(1, 2, 100, 100)
        target[:, 1, :, :voxels] = 1
        target[:, 0] = 1 - target[:, 1]
        nothing = torch.zeros_like(target)
        nothing[:, 0] = 1
        return probability_dice_loss(nothing, target).item()

    assert missed(1) == pytest.approx(missed(50), rel=0.02)
    assert missed(0) == 0  # seen by neither


def test_an_organ_of_which_the_teacher_is_unsure_is_not_held_back():
    def doubled(teacher: float) -> float:
        """Loss where the student says twice of a teacher's probability of the organ."""
        organ = torch.full((1, 1, 100, 100), teacher)
        target, student = torch.cat([1 - organ, organ], 1), torch.cat([1 - 2 * organ, 2 * organ], 1)
        return probability_dice_loss(student, target).item()

    assert doubled(0.5) == pytest.approx(0.5 * 0.2, rel=0.01)  # 1 - Dice is .2 for both
    assert doubled(0.05) == pytest.approx(0.05 * 0.2, rel=0.02)


def test_probability_dice_loss_of_parts_is_that_of_the_whole_batch(monkeypatch):
    torch.manual_seed(0)
    prediction, target = torch.rand(2, 4, 3, 6, 6).softmax(2)
    mask = torch.rand(4, 1, 6, 6) > 0.3
    sums: list[torch.Tensor] = []

    def note(shard: torch.Tensor) -> torch.Tensor:
        sums.append(shard)
        return shard

    whole = probability_dice_loss(prediction, target, mask)
    monkeypatch.setattr(consistency, "all_reduce_sum", note)
    for shard in (slice(0, 2), slice(2, 4)):
        probability_dice_loss(prediction[shard], target[shard], mask[shard])
    monkeypatch.setattr(consistency, "all_reduce_sum", lambda shard: shard + sums[1])
    of_shards = probability_dice_loss(prediction[:2], target[:2], mask[:2])
    torch.testing.assert_close(of_shards, whole)


@pytest.mark.parametrize("distance", [probability_mse, probability_dice_loss])
@pytest.mark.parametrize("shape", SHAPES)
def test_only_voxels_of_the_mask_matter(shape, distance):
    prediction, target = probabilities(shape).requires_grad_(), probabilities(shape)
    mask = torch.rand(shape[0], 1, *shape[2:]) < 0.5
    loss = distance(prediction, target, mask)
    changed = torch.where(mask, target, torch.rand_like(target))
    assert torch.equal(loss, distance(prediction, changed, mask))
    (gradient,) = torch.autograd.grad(loss, prediction)
    assert not gradient[~mask.expand_as(gradient)].any()
    assert gradient[mask.expand_as(gradient)].any()


@pytest.mark.parametrize("distance", [probability_mse, probability_dice_loss])
def test_an_empty_mask_gives_zero_and_a_zero_gradient(distance):
    prediction = probabilities((2, 3, 4, 4)).requires_grad_()
    mask = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    loss = distance(prediction, probabilities((2, 3, 4, 4)), mask)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(prediction.grad, torch.zeros_like(prediction))


@pytest.mark.parametrize("distance", [probability_mse, probability_dice_loss])
def test_target_receives_no_gradient_and_prediction_does(distance):
    prediction = probabilities((1, 2, 3, 3)).requires_grad_()
    target = probabilities((1, 2, 3, 3)).requires_grad_()
    distance(prediction, target).backward()
    assert target.grad is None
    assert prediction.grad.abs().sum() > 0


def test_equal_probabilities_are_at_distance_zero_and_opposite_ones_at_one():
    probs = probabilities((1, 3, 4, 4))
    assert probability_mse(probs, probs).item() == 0
    assert probability_dice_loss(probs, probs).item() == 0  # though they are uncertain
    onehot = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    assert probability_mse(onehot, 1 - onehot).item() == 1


@pytest.mark.parametrize("distance", [probability_mse, probability_dice_loss])
def test_half_precision_is_computed_in_float32(distance):
    prediction, target = probabilities((1, 2, 8, 8)).half(), probabilities((1, 2, 8, 8)).half()
    loss = distance(prediction, target)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, distance(prediction.float(), target.float()))


def test_masked_mean_of_one_voxel_is_its_mean_over_channels():
    values = torch.arange(8.0).view(1, 2, 2, 2)
    mask = torch.zeros(1, 1, 2, 2, dtype=torch.bool)
    mask[0, 0, 1, 0] = True
    assert masked_mean(values, mask).item() == (2 + 6) / 2
