"""Geometry and labels of batches, against slow and hand-written versions."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional as F

from semi_nnunet.augment import batched
from semi_nnunet.augment.batched import (
    build_sampling_grid,
    build_sampling_matrix,
    crop_centre,
    downsample_labels,
    fill_outside,
    mirror_samples,
    replace_label,
    resample_image,
    resample_labels,
    to_regions,
)

SHAPES = {"2d": (13, 18), "3d": (9, 12, 10)}
each_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def blobs(n: int, channels: int, shape: tuple[int, ...], labels: int = 4) -> torch.Tensor:
    """Return labels 0 to ``labels`` - 1 in pieces of a few voxels."""
    mode = "bilinear" if len(shape) == 2 else "trilinear"
    field = F.interpolate(torch.rand(n, channels, *[edge // 3 for edge in shape]), shape, mode=mode)
    return (field * labels).to(torch.int16)


def random_grids(n: int, size: tuple[int, ...]) -> torch.Tensor:
    """Return random affine grids, which reach outside."""
    axes = len(size)
    return build_sampling_grid(0.8 * torch.randn(n, axes, axes + 1), size)


@each_shape
@pytest.mark.parametrize("edge", [4, 9, 20, 21])
def test_the_crop_is_the_middle_and_padded_with_the_value(shape, edge):
    x, size = torch.rand(2, 3, *shape), (edge, *shape[1:])
    cropped = crop_centre(x, size, -5.0)
    assert cropped.shape == (2, 3, *size)
    inside = cropped[:, :, cropped[0, 0].flatten(1)[:, 0] != -5.0]
    start = max(0, shape[0] // 2 - edge // 2)
    assert torch.equal(inside, x[:, :, start : start + edge])
    assert inside.shape[2] == min(edge, shape[0])
    cropped.zero_()
    assert (x > 0).any()  # a copy


@each_shape
def test_the_grid_is_that_of_torch(shape):
    matrices = torch.randn(3, len(shape), len(shape) + 1)
    expected = F.affine_grid(matrices, [3, 1, *shape], align_corners=False)
    torch.testing.assert_close(build_sampling_grid(matrices, shape), expected)


def test_the_identity_samples_the_centre_and_a_quarter_turn_turns_it():
    x = torch.rand(1, 1, 8, 12)
    matrix = torch.tensor([build_sampling_matrix([[1.0, 0.0], [0.0, 1.0]], (8, 12), (4, 6))])
    resampled = resample_image(x, build_sampling_grid(matrix, (4, 6)))
    torch.testing.assert_close(resampled, x[:, :, 2:6, 3:9])
    matrix = torch.tensor([build_sampling_matrix([[0.0, -1.0], [1.0, 0.0]], (8, 12), (4, 4))])
    resampled = resample_image(x, build_sampling_grid(matrix, (4, 4)))
    torch.testing.assert_close(resampled, x[:, :, 2:6, 4:8].rot90(-1, (2, 3)).contiguous())


def test_the_value_is_outside_of_the_image():
    x, far = torch.rand(1, 2, 5, 5), torch.full((1, 3, 3, 2), 5.0)
    assert (resample_image(x, far, -2.5) == -2.5).all()
    assert (resample_labels(x.to(torch.int16), far, -1) == -1).all()


@each_shape
@pytest.mark.parametrize("outside", [-1, 2, 7])
def test_labels_have_the_highest_interpolated_indicator(shape, outside):
    """The hand-written version interpolates an indicator for every label of the padded array."""
    labels, grid = blobs(3, 2, shape), random_grids(3, shape)
    resampled = resample_labels(labels, grid, outside)
    values = sorted({0, 1, 2, 3, outside})
    scores = torch.stack(
        [resample_image((labels == v).float(), grid, float(v == outside)) for v in values], 1
    )
    top = scores.sort(1, descending=True).values
    clear = top[:, 0] - top[:, 1] > 2e-3  # float16 makes closer scores equal
    expected = torch.tensor(values, dtype=torch.int16)[scores.argmax(1)]
    assert torch.equal(resampled[clear], expected[clear]) and clear.float().mean() > 0.9


def test_of_equal_scores_the_nearest_label_wins_and_else_the_lowest():
    labels = torch.tensor([[3, 1], [1, 3]], dtype=torch.int16)[None, None]
    position = torch.tensor([-0.1, 0.0])[None, None, None]  # between two rows, nearer to the left
    assert resample_labels(labels, position, 0).item() in (1, 3)
    tie = torch.tensor([[5, 2, 5], [2, 7, 2], [5, 2, 5]], dtype=torch.int16)[None, None]
    middle = torch.zeros(1, 1, 1, 2)
    assert resample_labels(tie, middle, 0).item() == 7
    four = torch.tensor([[4, 3], [2, 1]], dtype=torch.int16)[None, None]
    assert resample_labels(four, middle, 0).item() in (1, 2, 3, 4)
    # the nearest voxel's label has a quarter of the score, two others share the rest
    crossing = torch.tensor([[9, 2], [5, 2]], dtype=torch.int16)[None, None]
    assert resample_labels(crossing, torch.full((1, 1, 1, 2), 0.0), 0).item() == 2


@each_shape
def test_computing_scores_only_where_labels_meet_changes_nothing(shape, monkeypatch):
    """The code for CPUs equals the code for other devices."""
    labels, grid = blobs(3, 2, shape), random_grids(3, shape)
    quick = resample_labels(labels, grid, -1)
    monkeypatch.setattr(
        batched, "_best_where_mixed",
        lambda padded, grid: batched._best_of_neighbours(padded[None], grid[None])[0],
    )  # fmt: skip
    assert torch.equal(resample_labels(labels, grid, -1), quick)


@each_shape
def test_the_nearest_label_is_that_of_grid_sample(shape):
    labels, grid = blobs(2, 1, shape), random_grids(2, shape)
    expected = F.grid_sample(labels.float() + 1, grid, mode="nearest", align_corners=False) - 1
    assert torch.equal(resample_labels(labels, grid, -1, "nearest").float(), expected)


@each_shape
def test_each_sample_is_mirrored_along_its_own_axes(shape):
    choices = [
        list(axes) for r in range(3) for axes in itertools.combinations(range(len(shape)), r)
    ]
    x = torch.rand(len(choices), 2, *shape)
    expected = [
        sample.flip([axis + 1 for axis in axes]) for sample, axes in zip(x, choices, strict=True)
    ]
    assert mirror_samples(x, choices) is x and torch.equal(x, torch.stack(expected))


LABELS = torch.tensor([[[[-1, 0, 1], [2, 3, -1]]]], dtype=torch.int16)


def test_a_label_is_replaced_in_the_channels_that_are_named():
    channels = LABELS.repeat(1, 2, 1, 1)
    everywhere = replace_label(channels.clone(), -1, 0, None)
    assert everywhere.min() == 0
    assert torch.equal(everywhere == 0, (channels == -1) | (channels == 0))
    second = replace_label(channels, -1, 0, [1])
    assert (
        second is channels
        and torch.equal(second[:, :1], LABELS)
        and torch.equal(second[:, 1:], everywhere[:, 1:])
    )


def test_only_the_named_channels_are_filled_outside():
    x = torch.ones(1, 3, 2, 3)
    filled = fill_outside(x, LABELS[:, 0] < 0, [0, 2], -4.0)
    assert filled is x and (x[:, 1] == 1).all()
    expected = torch.tensor([[-4.0, 1, 1], [1, 1, -4.0]])
    assert torch.equal(x[0, 0], expected) and torch.equal(x[0, 2], expected)


def test_regions_are_unions_of_labels():
    regions = to_regions(LABELS[:, 0], [(1, 2), (3,)])
    assert regions.dtype == torch.bool and regions.shape == (1, 2, 2, 3)
    assert regions[0, 0].tolist() == [[False, False, True], [True, False, False]]
    assert regions[0, 1].tolist() == [[False, False, False], [False, True, False]]


def test_scales_keep_type_and_full_resolution():
    wide = LABELS.repeat_interleave(2, 2).repeat_interleave(2, 3)
    levels = downsample_labels(wide, [(1, 1), (0.5, 0.5)])
    assert levels[0] is wide and torch.equal(levels[1], LABELS)


@pytest.mark.parametrize("edge", range(3, 14))
@pytest.mark.parametrize("factor", [1, 0.5, 0.25, 1 / 3, 0.6])
def test_voxels_are_those_of_nearest_exact_of_any_size(edge, factor):
    labels = torch.randint(0, 5, (2, 1, edge, 12), dtype=torch.int16)
    size = [round(edge * factor), 6]
    expected = F.interpolate(labels.float(), size, mode="nearest-exact").to(torch.int16)
    assert torch.equal(downsample_labels(labels, [(factor, 0.5)])[0], expected)
