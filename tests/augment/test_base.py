"""The base class of appearance changes."""

import pytest
import torch

from semi_nnunet.augment.base import BatchTransform, Params, per_sample, sample_uniform


class Negate(BatchTransform):
    def sample_params(self, x: torch.Tensor) -> Params:
        return {}

    def apply(self, x: torch.Tensor, params: Params) -> torch.Tensor:
        return -x


def test_each_sample_is_transformed_or_left_unchanged():
    x = torch.rand(1000, 2, 3, 3) + 1
    y = Negate(0.3)(x)
    negated = (y == -x).flatten(1).all(1)
    assert ((y == x).flatten(1).all(1) | negated).all()
    assert negated.float().mean().item() == pytest.approx(0.3, abs=0.05)


def test_per_sample_broadcasts_against_the_batch():
    x = torch.zeros(2, 3, 4, 5, 6)
    assert per_sample(torch.zeros(2), x).shape == (2, 1, 1, 1, 1)
    assert per_sample(torch.zeros(2, 3), x).shape == (2, 3, 1, 1, 1)


def test_uniform_fills_its_interval():
    values = sample_uniform(-2, 3, (10_000,), torch.device("cpu"))
    assert values.min() >= -2 and values.max() < 3
    assert values.mean().item() == pytest.approx(0.5, abs=0.1)
