"""Blocks that are hidden, and how well they were restored."""

from __future__ import annotations

import pytest
import torch

from semi_nnunet.core.masking import sample_hidden_blocks, score_restoration


@pytest.mark.parametrize(
    ("size", "block"), [((8, 12), (4, 4)), ((9, 10), (4, 4)), ((4, 8, 6), (1, 4, 3)), ((5,), (8,))]
)
@pytest.mark.parametrize("ratio", [0.0, 0.6, 0.9])
def test_whole_blocks_are_hidden_in_the_given_number(size, block, ratio):
    torch.manual_seed(0)
    hidden = sample_hidden_blocks(torch.zeros(5, 3, *size), block, ratio)
    assert hidden.shape == (5, 1, *size) and hidden.dtype == torch.bool
    grid = [-(-n // edge) for n, edge in zip(size, block, strict=True)]
    blocks = torch.cartesian_prod(*[torch.arange(n) for n in grid]).view(-1, len(grid))
    expected = max(1, round(ratio * len(blocks)))
    for sample in hidden[:, 0]:
        cells = [
            sample[tuple(slice(i * e, (i + 1) * e) for i, e in zip(index, block, strict=True))]
            for index in blocks.tolist()
        ]
        assert all(cell.all() or not cell.any() for cell in cells)
        assert sum(bool(cell.any()) for cell in cells) == expected


def test_samples_and_calls_hide_other_blocks():
    torch.manual_seed(0)
    batch = torch.zeros(2, 1, 32, 32)
    first, second = (
        sample_hidden_blocks(batch, (4, 4), 0.5),
        sample_hidden_blocks(batch, (4, 4), 0.5),
    )
    assert not torch.equal(first[0], first[1]) and not torch.equal(first, second)
    torch.manual_seed(0)
    assert torch.equal(first, sample_hidden_blocks(batch, (4, 4), 0.5))


def test_only_hidden_voxels_are_scored():
    torch.manual_seed(0)
    image, hidden = torch.randn(2, 3, 6, 5), torch.rand(2, 1, 6, 5) > 0.5
    restored = (image + torch.randn_like(image)).requires_grad_()
    error, share = score_restoration(restored, image, hidden)
    true, predicted = (
        torch.cat([x[i, c][hidden[i, 0]] for i in range(2) for c in range(3)]).double()
        for x in (image, restored.detach())
    )
    by_hand = ((true - predicted) ** 2).mean()
    assert error.item() == pytest.approx(by_hand.item(), rel=1e-5)
    assert share.item() == pytest.approx(1 - by_hand.item() / true.var(correction=0).item(), 1e-4)
    error.backward()
    assert (restored.grad != 0).any() and not (restored.grad * ~hidden).any()
    assert score_restoration(image, image, hidden)[1] == 1
