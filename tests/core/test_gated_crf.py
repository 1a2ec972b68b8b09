"""The gated CRF loss equals a slow sum over all pairs of voxels."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from semi_nnunet.core.gated_crf import INTENSITY, POSITION, POSITION_ONLY, RADIUS, gated_crf_loss


def energy_by_hand(probs: torch.Tensor, image: torch.Tensor, exclusive: bool) -> float:
    spatial = image.shape[2:]
    voxels = list(itertools.product(*map(range, spatial)))
    total = 0.0
    for sample, i, j in itertools.product(range(len(image)), voxels, voxels):
        steps = [abs(a - b) for a, b in zip(i, j, strict=True)]
        if i == j or max(steps) > RADIUS[len(spatial)]:
            continue
        squared = sum(step**2 for step in steps)
        difference = sum(float(c[i] - c[j]) ** 2 for c in image[sample])
        kernel = math.exp(-squared / (2 * POSITION**2) - difference / (2 * INTENSITY**2))
        kernel += math.exp(-squared / (2 * POSITION_ONLY**2))
        p = [float(c[i]) for c in probs[sample]]
        q = [float(c[j]) for c in probs[sample]]
        if exclusive:
            pairs = itertools.product(range(len(p)), repeat=2)
            differ = sum(p[k] * q[m] for k, m in pairs if k != m)
        else:
            differ = sum(a * (1 - b) + (1 - a) * b for a, b in zip(p, q, strict=True)) / len(p)
        total += kernel * differ
    return total / len(image) / len(voxels)


@pytest.mark.parametrize("spatial", [(7, 6), (8, 3), (4, 3, 5)])
@pytest.mark.parametrize("exclusive", [True, False])
def test_it_is_the_sum_over_all_pairs(spatial: tuple[int, ...], exclusive: bool) -> None:
    torch.manual_seed(0)
    image, logits = torch.randn(2, 2, *spatial) / 4, torch.randn(2, 3, *spatial)
    probs = logits.softmax(1) if exclusive else logits.sigmoid()
    loss = gated_crf_loss(probs, image, exclusive)
    assert loss.item() == pytest.approx(energy_by_hand(probs, image, exclusive), rel=1e-5)


def test_a_class_grows_to_the_edge_of_what_looks_alike() -> None:
    """Of two parts of an image, with one annotated voxel in each, both are filled."""
    image = torch.zeros(1, 1, 12, 12)
    image[..., 7:] = 2.0
    scribbles = torch.full((1, 12, 12), 2)
    scribbles[:, 6, 3], scribbles[:, 6, 10] = 0, 1
    logits = torch.zeros(1, 2, 12, 12, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        annotated = torch.nn.functional.cross_entropy(logits, scribbles, ignore_index=2)
        (annotated + 0.03 * gated_crf_loss(logits.softmax(1), image, True)).backward()
        optimizer.step()
    assert torch.equal(logits.argmax(1)[0], (image[0, 0] > 1).long())
