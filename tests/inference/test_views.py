"""Every view is undone exactly, or moves nothing."""

from __future__ import annotations

import pytest
import torch

from semi_nnunet.inference.views import find_square_planes, make_views
from semi_nnunet.settings.common import VIEWS


def image(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 2 + 1


@pytest.mark.parametrize(
    ("spacing", "shape"),
    [((1.0, 1.0), (2, 5, 7, 9)), ((1.0, 1.0, 1.0), (1, 5, 6, 7)), ((3.0, 1.0, 1.0), (2, 4, 5, 6))],
)
def test_logits_of_a_view_come_back_to_their_voxels(spacing, shape):
    x = image(shape)
    for view in make_views(["rot90"], spacing):
        changed = view.change(x)
        assert torch.equal(view.back(3 * changed - 1), 3 * x - 1)
        assert view.name == "as it is" or not (changed.shape == x.shape and torch.equal(changed, x))


def test_only_square_voxels_are_turned():
    assert find_square_planes((1.0, 1.0)) == [(-2, -1)]
    assert find_square_planes((3.0, 1.0, 1.0)) == [(-2, -1)]
    assert len(find_square_planes((1.0, 1.0, 1.0))) == 3
    assert len(make_views(["rot90"], (1.0, 2.0))) == 1


@pytest.mark.parametrize("name", ["gamma", "blur", "noise", "equalize"])
def test_appearance_changes_values_and_moves_nothing(name):
    x = image((2, 6, 20, 20))
    x[1] = 4.0  # a constant channel, as padding may give
    for view in make_views([name], (1.0, 1.0))[1:]:
        changed = view.change(x)
        assert changed.shape == x.shape and torch.isfinite(changed).all()
        assert torch.equal(changed, view.change(x))
        assert not torch.allclose(changed[0], x[0])
        assert torch.equal(view.back(changed), changed)
        correlation = torch.corrcoef(torch.stack([changed[0].flatten(), x[0].flatten()]))[0, 1]
        assert correlation > 0.3
        assert abs(changed[0].mean() - x[0].mean()) < 0.1


def test_slices_are_blurred_by_themselves_for_a_2d_network():
    x = image((1, 6, 20, 20))
    single = x.clone()
    single[:, [0, 1, 3, 4, 5]] = 1.5  # all but one slice
    within, across = (make_views(["blur"], spacing)[1] for spacing in ((1.0, 1.0), (2.0, 1.0, 1.0)))
    assert torch.equal(within.change(single)[:, 2], within.change(x)[:, 2])
    assert not torch.equal(across.change(single)[:, 2], across.change(x)[:, 2])


@pytest.mark.parametrize("name", ["rot90", "gamma", "blur", "noise", "equalize"])
def test_labels_of_a_first_stage_are_only_moved(name):
    x = image((2, 6, 20, 20))
    x[1] = (x[1] > 1).float()
    for view in make_views([name], (1.0, 1.0)):
        seen = view.of(x, image_channels=1)
        assert torch.equal(seen[:1], view.change(x[:1]))
        assert torch.equal(view.back(seen[1:]), x[1:])


def test_gamma_changes_the_image_and_equalize_flattens_the_histogram():
    x = image((1, 1, 64, 64)).abs()
    low, high = (view.change(x) for view in make_views(["gamma"], (1.0, 1.0))[1:])
    assert not torch.allclose(low, high, atol=0.1)
    flat = make_views(["equalize"], (1.0, 1.0))[1].change(x)
    counts = torch.histc(flat, 8)
    assert counts.max() < 1.3 * counts.min()


def test_all_names_make_views_except_flips():
    for name in VIEWS:
        views = make_views([name], (1.0, 1.0))
        assert views[0].name == "as it is"
        assert (len(views) == 1) == (name == "flips")
