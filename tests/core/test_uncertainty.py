"""Entropy of a prediction."""

import math

import pytest
import torch
from scipy.stats import entropy as scipy_entropy

from semi_nnunet.core.uncertainty import entropy, max_entropy


@pytest.mark.parametrize("channels", [2, 3, 8])
def test_a_uniform_distribution_has_the_largest_entropy(channels):
    uniform = torch.full((2, channels, 4, 4), 1 / channels)
    nats = entropy(uniform, exclusive=True)
    assert nats.shape == (2, 1, 4, 4)
    torch.testing.assert_close(nats, torch.full_like(nats, math.log(channels)), atol=1e-4, rtol=0)
    assert max_entropy(channels, exclusive=True) == pytest.approx(math.log(channels))


@pytest.mark.parametrize("exclusive", [True, False])
def test_a_certain_prediction_has_no_entropy(exclusive):
    onehot = torch.nn.functional.one_hot(torch.arange(3), 3).T[None].float()
    assert entropy(onehot, exclusive).abs().max() < 1e-5


def test_entropy_of_classes_equals_scipys():
    probs = torch.softmax(3 * torch.randn(2, 4, 3, 3, 3), 1)
    expected = scipy_entropy(probs.numpy(), axis=1)
    torch.testing.assert_close(
        entropy(probs, exclusive=True)[:, 0], torch.tensor(expected), atol=1e-4, rtol=0
    )


def test_entropy_of_regions_is_the_mean_of_binary_entropies():
    probs = torch.rand(2, 3, 4, 4)
    binary = torch.stack([probs, 1 - probs])
    expected = torch.tensor(scipy_entropy(binary.numpy(), axis=0)).mean(1)
    torch.testing.assert_close(entropy(probs, exclusive=False)[:, 0], expected, atol=1e-4, rtol=0)
    undecided = torch.full((1, 3, 2, 2), 0.5)
    assert entropy(undecided, exclusive=False).max().item() == pytest.approx(math.log(2), abs=1e-4)
    assert max_entropy(3, exclusive=False) == pytest.approx(math.log(2))


def test_entropy_is_finite_and_float32_for_half_precision_at_the_ends():
    probs = torch.tensor([0.0, 1.0, 1e-7, 0.5]).half().view(1, 2, 2)
    for exclusive in (True, False):
        nats = entropy(probs, exclusive)
        assert nats.dtype == torch.float32 and nats.isfinite().all()
