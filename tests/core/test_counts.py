"""Voxel counts, compared with those of nnU-Net."""

import pytest
import torch
from nnunetv2.training.loss.dice import get_tp_fp_fn_tn

from semi_nnunet.core.counts import count_classes


@pytest.mark.parametrize("shape", [(5, 7), (3, 4, 6)])
@pytest.mark.parametrize("ignore", [None, 4])
def test_classes_are_counted_as_nnunet_does(shape, ignore):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, *shape, generator=generator)
    target = torch.randint(0, 4 if ignore is None else 5, (2, 1, *shape), generator=generator)
    mask = torch.ones_like(target) if ignore is None else (target != ignore).long()
    predicted = torch.zeros_like(logits).scatter_(1, logits.argmax(1, keepdim=True), 1)
    axes = (0, *range(2, logits.ndim))
    expected = get_tp_fp_fn_tn(predicted, target * mask, axes=axes, mask=mask.float())[:3]
    counts = count_classes(logits, target.float(), True, ignore)
    assert torch.equal(counts[:3].float(), torch.stack(expected)[:, 1:])
    assert (counts[3] == mask.sum()).all() and counts.shape == (4, 3)


@pytest.mark.parametrize("ignore", [None, 3])
def test_regions_are_counted_as_nnunet_does(ignore):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 6, 5, generator=generator)
    regions = torch.rand(2, 3, 6, 5, generator=generator) > 0.5
    ignored = torch.rand(2, 1, 6, 5, generator=generator) > 0.7
    target = regions if ignore is None else torch.cat([regions, ignored], 1)
    mask = torch.ones_like(ignored) if ignore is None else ~ignored
    axes = (0, 2, 3)
    expected = get_tp_fp_fn_tn((logits > 0).float(), regions, axes=axes, mask=mask.float())[:3]
    counts = count_classes(logits, target, False, ignore)
    assert torch.equal(counts[:3].float(), torch.stack(expected))
    assert (counts[3] == mask.sum()).all()


@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("ignore", [None, 4])
def test_samples_are_counted_only_for_annotated_classes(exclusive, ignore):
    generator = torch.Generator().manual_seed(1)
    annotated = torch.tensor([[True, False, True, True], [True, True, False, False]])
    logits = torch.randn(2, 4, 5, 6, generator=generator)
    if exclusive:
        target = torch.randint(0, 4 if ignore is None else 5, (2, 1, 5, 6), generator=generator)
        for sample, label in (~annotated).nonzero().tolist():
            target[sample][target[sample] == label] = 0
    else:
        target = torch.rand(2, 4 + (ignore is not None), 5, 6, generator=generator) > 0.5
    expected = torch.zeros(4, 4, dtype=torch.long)
    for sample in range(2):
        for y in range(5):
            for x in range(6):
                z, label = logits[sample, :, y, x], target[sample, :, y, x]
                if ignore is not None and (label[0] == ignore if exclusive else label[-1]):
                    continue
                for c in range(4):
                    if annotated[sample, c]:
                        predicted = z.argmax() == c if exclusive else z[c] > 0
                        true = label[0] == c if exclusive else label[c]
                        hits = torch.stack([predicted & true, predicted & ~true, true & ~predicted])
                        expected[:, c] += torch.cat([hits.long(), torch.ones(1).long()])
    counts = count_classes(logits, target, exclusive, ignore, annotated)
    assert torch.equal(counts, expected[:, 1 if exclusive else 0 :])
    everything = torch.ones_like(annotated)
    plain = count_classes(logits, target, exclusive, ignore)
    assert torch.equal(count_classes(logits, target, exclusive, ignore, everything), plain)
