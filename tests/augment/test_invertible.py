"""Flips and quarter turns are undone exactly."""

import itertools

import pytest
import torch

from semi_nnunet.augment.invertible import GridView, list_square_planes, sample_grid_view


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("flips", [(), (0,), (1, 2), (0, 1, 2)], ids=str)
def test_inverse_brings_every_voxel_back(flips, turns):
    x = torch.arange(2 * 3 * 4 * 5 * 5).view(2, 3, 4, 5, 5)
    view = GridView(flips, (1, 2), turns)
    assert view(x).shape == x.shape
    assert torch.equal(view.inverse(view(x)), x) and torch.equal(view(view.inverse(x)), x)


def test_averaging_before_undoing_the_flip_is_wrong():
    """The classic bug: left in one view must meet right in the other."""
    x = torch.rand(1, 1, 4, 4)
    view = GridView((1,))
    aligned = (x + view.inverse(view(x))) / 2
    assert torch.equal(aligned, x)
    assert not torch.equal((x + view(x)) / 2, x)


def test_quarter_turns_only_where_patch_and_spacing_are_square():
    assert list_square_planes((64, 64), (1.0, 1.0)) == [(0, 1)]
    assert list_square_planes((64, 48), (1.0, 1.0)) == []
    assert list_square_planes((64, 64), (1.0, 1.2)) == []
    assert list_square_planes((16, 64, 64), (3.0, 0.8, 0.8)) == [(1, 2)]
    assert len(list_square_planes((32, 32, 32), (1, 1, 1))) == 3


def test_every_allowed_view_is_drawn_and_no_other():
    torch.manual_seed(0)
    drawn = {sample_grid_view((0, 1), [(0, 1)]) for _ in range(300)}
    assert len(drawn) == 4 * 4
    flips = {sample_grid_view((1,), []) for _ in range(50)}
    assert flips == {GridView(()), GridView((1,))}
    assert {sample_grid_view((), []) for _ in range(5)} == {GridView()}
    x = torch.rand(1, 1, 3, 3)
    for first, second in itertools.combinations(sorted(drawn, key=str), 2):
        if first.quarter_turns == second.quarter_turns:
            assert not torch.equal(first(x), second(x))
