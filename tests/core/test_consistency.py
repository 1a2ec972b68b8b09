"""The distance between student and teacher."""

import itertools

import pytest
import torch

from semi_nnunet.core.consistency import masked_mean, probability_mse

SHAPES = [(2, 3, 4, 5), (2, 2, 3, 4, 3)]


def probabilities(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.softmax(torch.randn(shape), 1)


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
def test_only_voxels_of_the_mask_matter(shape):
    prediction, target = probabilities(shape).requires_grad_(), probabilities(shape)
    mask = torch.rand(shape[0], 1, *shape[2:]) < 0.5
    loss = probability_mse(prediction, target, mask)
    changed = torch.where(mask, target, torch.rand_like(target))
    assert torch.equal(loss, probability_mse(prediction, changed, mask))
    (gradient,) = torch.autograd.grad(loss, prediction)
    assert not gradient[~mask.expand_as(gradient)].any()
    assert gradient[mask.expand_as(gradient)].any()


def test_an_empty_mask_gives_zero_and_a_zero_gradient():
    prediction = probabilities((2, 3, 4, 4)).requires_grad_()
    mask = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    loss = probability_mse(prediction, probabilities((2, 3, 4, 4)), mask)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(prediction.grad, torch.zeros_like(prediction))


def test_target_receives_no_gradient_and_prediction_does():
    prediction = probabilities((1, 2, 3, 3)).requires_grad_()
    target = probabilities((1, 2, 3, 3)).requires_grad_()
    probability_mse(prediction, target).backward()
    assert target.grad is None
    assert prediction.grad.abs().sum() > 0


def test_equal_probabilities_are_at_distance_zero_and_opposite_ones_at_one():
    probs = probabilities((1, 3, 4, 4))
    assert probability_mse(probs, probs).item() == 0
    left = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    assert probability_mse(left, 1 - left).item() == 1


def test_half_precision_is_computed_in_float32():
    prediction, target = probabilities((1, 2, 8, 8)).half(), probabilities((1, 2, 8, 8)).half()
    loss = probability_mse(prediction, target)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, probability_mse(prediction.float(), target.float()))


def test_masked_mean_of_one_voxel_is_its_mean_over_channels():
    values = torch.arange(8.0).view(1, 2, 2, 2)
    mask = torch.zeros(1, 1, 2, 2, dtype=torch.bool)
    mask[0, 0, 1, 0] = True
    assert masked_mean(values, mask).item() == (2 + 6) / 2
