"""Class weights from voxel counts, against a slow hand-written version."""

import math

import pytest
import torch

from semi_nnunet.core.class_frequencies import MIN_FREQUENCY, FrequencyWeights


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
