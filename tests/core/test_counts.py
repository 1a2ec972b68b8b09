"""What a prediction gets right, as nnU-Net counts it."""

import pytest
import torch
from nnunetv2.training.loss.dice import get_tp_fp_fn_tn

from semi_nnunet.core.counts import class_counts


@pytest.mark.parametrize("shape", [(5, 7), (3, 4, 6)])
@pytest.mark.parametrize("looked_at", [1.0, 0.6])
def test_classes_are_counted_as_nnunet_does(shape, looked_at):
    generator = torch.Generator().manual_seed(0)
    labels, target = torch.randint(0, 2, (2, 2, 3, *shape), generator=generator).float()
    mask = (torch.rand(2, 1, *shape, generator=generator) <= looked_at).float()
    axes = (0, *range(2, labels.ndim))
    expected = get_tp_fp_fn_tn(labels, target, axes=axes, mask=mask)[:3]
    assert torch.equal(class_counts(labels, target, mask), torch.stack(expected))
