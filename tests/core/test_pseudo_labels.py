"""From probabilities to pseudo labels."""

import numpy as np
import pytest
import torch

from semi_nnunet.core.pseudo_labels import (
    ClassThresholds,
    confidence,
    hard_pseudo_label,
    is_foreground,
    keep_largest_in_patches,
    most_probable,
    sharpen,
)


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


def random_probs(exclusive: bool, *shape: int) -> torch.Tensor:
    logits = 3 * torch.randn(shape)
    return logits.softmax(1) if exclusive else logits.sigmoid()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_first_of_equal_classes_is_the_most_probable(dtype):
    values = torch.randint(0, 3, (2, 4, 9, 10)).to(dtype)  # many are equal
    assert torch.equal(most_probable(values), values.argmax(1))
    assert torch.equal(most_probable(values, 0, keepdim=True), values.argmax(0, keepdim=True))


def test_background_is_a_class_of_the_argmax():
    """The FLARE seed's networks had none: every voxel became some organ, shifted by one."""
    probs = torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.2, 0.7]]).T.view(1, 3, 3, 1)
    hard = hard_pseudo_label(probs, exclusive=True)
    assert hard[0, :, :, 0].tolist() == torch.eye(3).tolist()
    assert is_foreground(probs, True).flatten().tolist() == [False, True, True]


def test_regions_may_overlap_or_be_empty():
    probs = torch.tensor([[0.9, 0.9], [0.2, 0.7], [0.1, 0.4]]).T.view(1, 2, 3, 1)
    assert hard_pseudo_label(probs, False)[0, :, :, 0].T.tolist() == [[1, 1], [0, 1], [0, 0]]
    assert is_foreground(probs, False).flatten().tolist() == [True, True, False]


@pytest.mark.parametrize("exclusive", [True, False])
def test_sharpening_by_hand(exclusive):
    probs = random_probs(exclusive, 2, 3, 4, 5).double()
    sharp = sharpen(probs, 0.5, exclusive)
    for index in np.ndindex(2, 4, 5):
        p = probs[index[0], :, index[1], index[2]].numpy()
        powered = p**2
        expected = powered / powered.sum() if exclusive else powered / (powered + (1 - p) ** 2)
        np.testing.assert_allclose(sharp[index[0], :, index[1], index[2]], expected, rtol=1e-5)
    torch.testing.assert_close(sharpen(probs, 1.0, exclusive), probs.float())


def test_confidence_of_classes_and_regions():
    probs = torch.tensor([0.2, 0.7, 0.1]).view(1, 3, 1)
    assert confidence(probs, True).flatten().tolist() == pytest.approx([0, 0.7, 0])
    assert confidence(probs, False).flatten().tolist() == pytest.approx([0.8, 0.7, 0.9])


def trusted_by_hand(thresholds, tau, probs, mask, exclusive):
    """Apply thresholds voxel by voxel: that of the class, or tau for "not this region"."""
    trusted = torch.zeros_like(mask)
    for b, y, x in np.ndindex(mask.shape[0], *mask.shape[2:]):
        p = probs[b, :, y, x]
        if exclusive:
            sure = bool(p.max() >= thresholds[p.argmax()])
        else:
            sure = all(
                q >= t if q > 0.5 else 1 - q >= tau for q, t in zip(p, thresholds, strict=True)
            )
        trusted[b, 0, y, x] = sure and bool(mask[b, 0, y, x])
    return trusted


@pytest.mark.parametrize("class_wise", [True, False])
@pytest.mark.parametrize("exclusive", [True, False])
def test_thresholds_equal_a_loop(exclusive, class_wise):
    thresholds = ClassThresholds(3, 0.9, class_wise, decay=0.5)
    mean = [1 / 3] * 3
    for _ in range(4):
        probs, mask = random_probs(exclusive, 2, 3, 6, 5), torch.rand(2, 1, 6, 5) < 0.8
        trusted = thresholds(probs, mask, exclusive)
        predicted = hard_pseudo_label(probs, exclusive)
        for c in range(3):
            voxels = (predicted[:, c] > 0) & mask[:, 0]
            mean[c] = 0.5 * mean[c] + 0.5 * probs[:, c][voxels].mean().item()
        expected = [0.9 * m / max(mean) if class_wise else 0.9 for m in mean]
        assert thresholds.thresholds().tolist() == pytest.approx(expected, rel=1e-5)
        assert torch.equal(trusted, trusted_by_hand(expected, 0.9, probs, mask, exclusive))
    assert not trusted.all() and trusted.any()


def test_a_small_organ_of_low_confidence_is_not_silenced():
    """Background is confident, the organ is not: a common threshold keeps only background."""
    probs = torch.zeros(1, 2, 10, 10)
    probs[:, 0], probs[:, 1] = 0.999, 0.001
    probs[:, :, 4:6, 4:6] = torch.tensor([0.3, 0.7]).view(1, 2, 1, 1)
    mask = torch.ones(1, 1, 10, 10, dtype=torch.bool)
    organ = is_foreground(probs, True)
    common, class_wise = ClassThresholds(2, 0.95, False), ClassThresholds(2, 0.95, True)
    for _ in range(500):
        common(probs, mask, True), class_wise(probs, mask, True)
    assert not (common(probs, mask, True) & organ).any()
    assert class_wise(probs, mask, True)[organ].all()


def test_an_uncertain_region_is_not_labelled_as_outside():
    """Its low threshold is only for voxels inside it."""
    probs = torch.zeros(1, 2, 10, 10)
    probs[:, 0], probs[:, 1] = 0.99, 0.001
    probs[:, 1, 4:6, 4:6], probs[:, 1, 6:8, 4:8] = 0.7, 0.45
    mask = torch.ones(1, 1, 10, 10, dtype=torch.bool)
    thresholds = ClassThresholds(2, 0.95, True)
    for _ in range(500):
        trusted = thresholds(probs, mask, False)
    assert thresholds.thresholds()[1] < 0.7
    doubted = probs[:, 1:] == 0.45
    assert trusted[probs[:, 1:] == 0.7].all() and not trusted[doubted].any()
    assert trusted[probs[:, 1:] == 0.001].all()


def test_a_class_that_is_not_predicted_keeps_its_threshold():
    thresholds = ClassThresholds(3, 0.9, True)
    probs = torch.tensor([0.9, 0.1, 0.0]).view(1, 3, 1, 1)
    thresholds(probs, torch.ones(1, 1, 1, 1, dtype=torch.bool), True)
    assert thresholds.mean[1:].tolist() == pytest.approx([1 / 3, 1 / 3])


@pytest.mark.parametrize("exclusive", [True, False])
def test_largest_component_of_each_patch_and_class(exclusive):
    target = torch.zeros(2, 3, 8, 8)
    target[:, 1, 0:3, 0:3] = 1
    target[:, 1, 6:8, 6:8] = 1  # smaller
    target[1, 1, 0:3, 0:3] = 0  # in the second patch it is the only one
    target[:, 2, 5, 0] = target[:, 2, 6, 1] = 1  # joined by a corner
    if exclusive:
        target[:, 0] = 1 - target[:, 1:].sum(1)
    largest = keep_largest_in_patches(target, exclusive)
    assert largest[0, 1].sum() == 9 and largest[1, 1].sum() == 4
    assert torch.equal(largest[:, 2], target[:, 2])
    if exclusive:
        assert torch.equal(largest.sum(1), torch.ones(2, 8, 8))
    assert target[0, 1].sum() == 13  # the argument is unchanged
