"""Classes that were not annotated: merged into the background, voxel by voxel."""

import numpy as np
import pytest
import torch

from semi_nnunet.core.partial_labels import (
    find_certain_voxels,
    merge_logits,
    merge_probs,
    per_voxel,
)

ANNOTATED = torch.tensor([[True, True, False, False], [True, True, True, True]])


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(3)


def by_hand(probs: torch.Tensor, annotated: torch.Tensor) -> np.ndarray:
    """Each class that is not annotated at a voxel gives its probability to the background."""
    merged = probs.double().numpy().copy()
    certain = annotated.expand(probs.shape).numpy()
    for sample, channel, *voxel in np.argwhere(~certain):
        merged[(sample, 0, *voxel)] += merged[(sample, channel, *voxel)]
        merged[(sample, channel, *voxel)] = 0
    return merged


@pytest.mark.parametrize("shape", [(3, 5), (2, 3, 4)])
@pytest.mark.parametrize("mixed", [False, True])
def test_unannotated_classes_are_merged_into_the_background(shape, mixed):
    logits = 3 * torch.randn(2, 4, *shape)
    annotated = per_voxel(ANNOTATED, logits.ndim)
    if mixed:  # another set of classes at every voxel
        annotated = torch.rand(2, 4, *shape) > 0.5
        annotated[:, 0] = True
    expected = by_hand(logits.softmax(1), annotated)
    np.testing.assert_allclose(merge_logits(logits, annotated).softmax(1), expected, atol=1e-6)
    np.testing.assert_allclose(merge_probs(logits.softmax(1), annotated, True), expected, atol=1e-6)


def test_nothing_changes_bit_for_bit_if_all_classes_are_annotated():
    logits, everything = 3 * torch.randn(2, 4, 5, 6), torch.ones(2, 4, dtype=torch.bool)
    assert torch.equal(merge_logits(logits, everything), logits)
    probs, mask = logits.softmax(1), torch.rand(2, 1, 5, 6) > 0.5
    for exclusive in (True, False):
        assert torch.equal(merge_probs(probs, everything, exclusive), probs)
        assert merge_probs(probs, None, exclusive) is probs
        certain = find_certain_voxels(probs, mask, everything, exclusive)
        assert torch.equal(certain.expand_as(probs), mask.expand_as(probs))
        assert find_certain_voxels(probs, mask, None, exclusive) is mask


def test_unannotated_regions_are_excluded():
    probs, mask = torch.rand(2, 4, 3, 3), torch.rand(2, 1, 3, 3) > 0.3
    merged, certain = (
        merge_probs(probs, ANNOTATED, False),
        find_certain_voxels(probs, mask, ANNOTATED, False),
    )
    assert not merged[0, 2:].any() and not certain[0, 2:].any()
    assert torch.equal(merged[0, :2], probs[0, :2]) and torch.equal(merged[1], probs[1])
    assert torch.equal(certain[1], mask[1].expand(4, 3, 3))


def test_the_organs_of_a_partial_label_are_certain_and_its_background_is_not():
    labels = torch.tensor([[[0, 1, 0, 1]], [[0, 1, 2, 3]]])
    target = torch.nn.functional.one_hot(labels[:, 0], 4).movedim(-1, 1).float()
    mask = torch.tensor([[[True, True, True, False]]]).expand(2, 1, 4)
    certain = find_certain_voxels(target, mask, ANNOTATED, True)
    assert certain.tolist() == [[[False, True, False, False]], [[True, True, True, False]]]


@pytest.mark.parametrize("size", [1.0, 100.0, 1e4])
def test_large_logits_have_finite_results_and_gradients(size):
    logits = (size * torch.randn(2, 4, 6, 6)).requires_grad_()
    log_probs = torch.log_softmax(merge_logits(logits, ANNOTATED), 1)
    value = (log_probs * per_voxel(ANNOTATED, 4)).sum()
    (gradient,) = torch.autograd.grad(value, logits)
    assert value.isfinite() and gradient.isfinite().all()
