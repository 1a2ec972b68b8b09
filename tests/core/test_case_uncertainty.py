"""Uncertainty of a whole image."""

import numpy as np
import pytest
import torch

from semi_nnunet.core.case_uncertainty import (
    checkpoint_disagreement,
    foreground_entropy,
    network_disagreement,
    voxel_change,
)
from semi_nnunet.core.uncertainty import entropy


def labels(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.3


def test_disagreement_equals_a_loop():
    first, second = labels(3, 5, 6, 4), labels(3, 5, 6, 4, seed=1)
    dice = []
    for a, b in zip(first.numpy(), second.numpy(), strict=True):
        dice.append(2 * (a & b).sum() / (a.sum() + b.sum()))
    assert network_disagreement(first, second) == pytest.approx(1 - np.mean(dice))
    assert network_disagreement(first, first) == 0


def test_a_class_that_neither_finds_is_left_out_and_nothing_found_is_worst():
    first = torch.zeros(2, 4, 4, dtype=torch.bool)
    second = first.clone()
    assert network_disagreement(first, second) == 1.0
    assert checkpoint_disagreement([first, second]) == 1.0
    assert voxel_change([first, second]) == 1.0
    probs = torch.tensor([0.9, 0.1]).view(2, 1, 1).expand(2, 4, 4)
    assert foreground_entropy(probs, True) == 1.0
    first[0, 1:3, 1:3] = second[0, 1:3, 1:3] = True
    assert network_disagreement(first, second) == 0.0


def test_checkpoints_are_compared_with_the_last():
    rounds = [labels(2, 6, 6, seed=seed) for seed in range(3)]

    def mean_iou(a, b):
        return np.mean(
            [(x & y).sum() / (x | y).sum() for x, y in zip(a.numpy(), b.numpy(), strict=True)]
        )

    expected = 1 - (mean_iou(rounds[0], rounds[2]) + mean_iou(rounds[1], rounds[2])) / 2
    assert checkpoint_disagreement(rounds) == pytest.approx(expected)


def test_entropy_is_that_of_the_foreground_and_its_border():
    torch.manual_seed(0)
    probs = torch.zeros(2, 9, 9)
    probs[0], probs[1] = 0.6, 0.4
    probs[:, 3:6, 3:6] = torch.tensor([0.2, 0.8]).view(2, 1, 1)
    nats = entropy(probs[None], True)[0, 0]
    expected = nats[2:7, 2:7].mean() / np.log(2)
    assert foreground_entropy(probs, True) == pytest.approx(expected.item(), rel=1e-5)
    certain = (probs == probs.amax(0)).float()
    assert foreground_entropy(certain, True) == foreground_entropy(certain[1:], False) == 0.0


def test_a_large_image_is_not_taken_for_an_uncertain_one():
    """A sum over the volume ranks the large, certain image as the worse one."""

    def image(size: int, confidence: float) -> torch.Tensor:
        probs = torch.zeros(2, size, size)
        probs[0], probs[1] = 0.98, 0.02  # a little unsure of background everywhere
        probs[:, 4:12, 4:12] = torch.tensor([1 - confidence, confidence]).view(2, 1, 1)
        return probs

    large_and_sure, small_and_unsure = image(200, 0.99), image(16, 0.6)
    sums = [entropy(p[None], True).sum() for p in (large_and_sure, small_and_unsure)]
    assert sums[0] > sums[1]
    assert foreground_entropy(large_and_sure, True) < foreground_entropy(small_and_unsure, True)


def test_change_is_relative_to_the_foreground():
    earlier = torch.zeros(2, 8, 8, dtype=torch.bool)
    earlier[0, 2:6, 2:6] = True
    later = earlier.clone()
    later[0, 2, 2:6] = False
    later[1, 2, 2:6] = True  # four voxels have another class now
    assert voxel_change([earlier, later]) == pytest.approx(4 / 16)
    assert voxel_change([~later, later]) == 1.0
    mean = (voxel_change([earlier, later]) + voxel_change([later, earlier])) / 2
    assert voxel_change([earlier, later, earlier]) == pytest.approx(mean)
