"""Class weights from voxel counts and difficulty, against slow hand-written versions."""

import math

import numpy as np
import pytest
import torch

from semi_nnunet.core.class_weights import (
    MIN_FREQUENCY,
    DifficultyWeights,
    FrequencyWeights,
    hard_dice,
)
from semi_nnunet.core.partial_labels import merge_probs


def onehot(labels: torch.Tensor, classes: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(labels, classes).movedim(-1, 1).float()


def by_hand(frequencies: list[float]) -> list[float]:
    most = max(frequencies)
    weights = [1 + math.log(most / max(f, MIN_FREQUENCY)) for f in frequencies]
    return [w * len(weights) / sum(weights) for w in weights]


def test_weights_of_averaged_frequencies_as_counted_by_hand():
    torch.manual_seed(0)
    weights, frequencies = FrequencyWeights(3, decay=0.8), [1 / 3] * 3
    for _ in range(4):
        labels = (torch.rand(2, 5, 6) ** 3 * 3).long()
        mask = torch.rand(2, 1, 5, 6) > 0.3
        weights.count(onehot(labels, 3), mask)
        seen = [labels[i, y, x].item() for i, _, y, x in mask.nonzero().tolist()]
        frequencies = [
            0.8 * f + 0.2 * seen.count(label) / len(seen) for label, f in enumerate(frequencies)
        ]
    assert weights.frequencies.tolist() == pytest.approx(frequencies)
    assert weights().tolist() == pytest.approx(by_hand(frequencies), rel=1e-5)
    assert weights().argmax() == weights.frequencies.argmin()


def test_weights_are_equal_at_first_and_without_annotated_voxels():
    weights = FrequencyWeights(4)
    weights.count(torch.ones(1, 4, 3, 3), torch.zeros(1, 1, 3, 3, dtype=torch.bool))
    assert weights().tolist() == [1.0] * 4


def test_a_class_that_is_never_seen_keeps_a_finite_weight():
    weights = FrequencyWeights(2, decay=0.0)
    weights.count(onehot(torch.zeros(1, 4, 4, dtype=torch.long), 2), torch.ones(1, 1, 4, 4))
    assert weights().tolist() == pytest.approx(by_hand([1.0, 0.0]))


def test_a_class_is_counted_in_the_samples_that_annotate_it():
    weights = FrequencyWeights(4, decay=0.0)
    annotated = torch.tensor([[True, True, False, False], [True, True, True, False]])
    labels = torch.tensor([[[0, 1, 1, 0]], [[0, 1, 2, 2]]])
    mask = torch.tensor([[[[True] * 4]], [[[True, True, True, False]]]])
    weights.count(onehot(labels, 4), mask, annotated)
    assert weights.frequencies.tolist() == pytest.approx([3 / 7, 3 / 7, 1 / 3, 1 / 4])


@pytest.mark.parametrize("normalised", [True, False])
def test_weights_equal_a_loop(normalised):
    weights = DifficultyWeights(3, horizon=10, normalised=normalised)
    learn, unlearn, low, previous = [0.0] * 3, [0.0] * 3, [1.0] * 3, [1e-8] * 3
    rng = np.random.default_rng(0)
    for _ in range(25):
        dice = rng.uniform(0.01, 1, 3)
        result = weights(torch.tensor(dice))
        expected = []
        for k in range(3):
            change, ratio = dice[k] - previous[k], math.log(dice[k] / previous[k])
            learn[k] += (max(change, 0) * ratio - learn[k]) / 10
            unlearn[k] += (min(change, 0) * ratio - unlearn[k]) / 10
            low[k] += (1 - dice[k] - low[k]) / 10
            previous[k] = dice[k]
            expected.append(((unlearn[k] + 1e-8) / (learn[k] + 1e-8)) ** 0.2 * low[k])
        expected = np.array(expected)
        expected = expected / expected.mean() if normalised else expected * 3
        np.testing.assert_allclose(result.numpy(), expected, rtol=0, atol=1e-5)


def test_a_class_with_falling_dice_has_a_larger_weight_than_one_with_rising_dice():
    weights = DifficultyWeights(2)
    for step in range(20):
        result = weights(torch.tensor([0.2 + 0.03 * step, 0.8 - 0.03 * step]))
    assert result[1] > result[0]


def test_normalised_weights_keep_the_size_of_the_loss():
    weights = DifficultyWeights(3, normalised=True)
    for dice in ([1.0, 0.0, 0.0], [1.0, 0.9, 0.0], [1.0, 0.1, 0.0], [1.0, 1.0, 1.0]):
        result = weights(torch.tensor(dice))
        assert torch.isfinite(result).all() and result.mean().item() == pytest.approx(1.0)


def test_dice_counts_only_voxels_of_the_mask():
    labels, target = torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4)
    labels[0, 1, :2], target[0, 1, 1:3] = 1, 1
    mask = torch.ones(1, 1, 4, 4)
    assert hard_dice(labels, target, mask)[1].item() == pytest.approx(0.5)
    mask[:, :, 0] = 0
    assert hard_dice(labels, target, mask)[1].item() == pytest.approx(2 * 4 / 12)
    assert hard_dice(labels, target, mask)[0].isnan()  # neither has any
    assert hard_dice(labels, target, mask, absent=0.5).tolist() == pytest.approx([0.5, 2 * 4 / 12])


def test_a_class_seen_in_one_of_ten_batches_is_not_silenced():
    """Its averages equal those of the same class, with the same values, in every batch."""
    rare, common = DifficultyWeights(2, normalised=False), DifficultyWeights(2, normalised=False)
    rng = np.random.default_rng(0)
    for step in range(400):
        easy = rng.uniform(0.8, 0.9)
        if step % 10 == 0:
            hard = rng.uniform(0.1, 0.3)
            common(torch.tensor([easy, hard]))
        result = rare(torch.tensor([easy, hard if step % 10 == 0 else math.nan]))
    assert rare.low[1].item() == pytest.approx(common.low[1].item())
    assert torch.equal(rare.learn[1], common.learn[1])
    assert result[1] > result[0] and torch.isfinite(result).all()
    silenced = DifficultyWeights(2, normalised=False)  # an absent class taken for an easy one
    for step in range(400):
        silent = silenced(torch.tensor([0.85, rng.uniform(0.1, 0.3) if step % 10 == 0 else 1.0]))
    assert silent[1] < 0.2 * result[1]


@pytest.mark.parametrize("exclusive", [True, False])
def test_dice_counts_only_annotated_classes(exclusive):
    labels = torch.nn.functional.one_hot(torch.randint(3, (2, 6, 6)), 3).movedim(-1, 1).float()
    target = labels.roll(1, -1)
    annotated = torch.tensor([[True, True, False], [True, False, False]])
    mask = torch.ones(2, 1, 6, 6)
    dice = hard_dice(labels, target, mask, 0.0, annotated, exclusive)
    merged = merge_probs(labels, annotated, exclusive)
    assert torch.equal(dice, hard_dice(merged, target, mask, 0.0))
    assert dice[2] == 0
