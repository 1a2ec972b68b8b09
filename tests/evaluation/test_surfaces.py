"""Distances between surfaces, against a search over all pairs and published tables."""

import numpy as np
import pytest
from scipy.ndimage import binary_erosion

from semi_nnunet.evaluation.surfaces import (
    CONVENTIONS,
    find_bounding_box,
    surface_distances,
    tabulate_element_sizes,
    weigh_edges,
    weigh_surfels,
)
from tests.evaluation.masks import SPACINGS, blobs


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("convention", ["edge", "surfel"])
def test_distances_agree_with_a_search_over_all_pairs(convention, dimensions):
    (ours, theirs), spacing = blobs(dimensions, 3), SPACINGS[dimensions]
    distances = surface_distances(ours, theirs, spacing, convention)
    points = [np.argwhere(CONVENTIONS[convention](mask, spacing)) for mask in (ours, theirs)]
    apart = (points[0][:, None] - points[1][None]) * np.asarray(spacing)
    expected = np.linalg.norm(apart, axis=-1)
    assert np.sort(distances.to_reference) == pytest.approx(np.sort(expected.min(1)))
    assert np.sort(distances.to_prediction) == pytest.approx(np.sort(expected.min(0)))


def test_areas_equal_the_published_table():
    tables = pytest.importorskip("monai.metrics.utils")
    for spacing in ((1.0, 1.0, 1.0), (3.0, 0.7, 1.3)):
        published, _ = tables.create_table_neighbour_code_to_surface_area(spacing)
        assert sorted(tabulate_element_sizes(spacing)) == pytest.approx(
            sorted(map(float, published)), abs=1e-5
        )
    lengths, _ = tables.create_table_neighbour_code_to_contour_length((1.2, 0.7))
    assert sorted(tabulate_element_sizes((1.2, 0.7))) == pytest.approx(
        sorted(map(float, lengths)), abs=1e-6
    )


@pytest.mark.parametrize("dimensions", [2, 3])
def test_edges_are_the_voxels_that_an_erosion_removes(dimensions):
    mask, _ = blobs(dimensions, 0)
    expected = mask & ~binary_erosion(mask)
    np.testing.assert_array_equal(weigh_edges(mask, SPACINGS[dimensions]), expected)
    assert expected[mask].any() and not expected[mask].all()


@pytest.mark.parametrize(
    ("spacing", "size"), [((0.5, 1.5), 2 * np.pi), ((0.8, 1.0, 1.3), 4 * np.pi)]
)
def test_elements_add_up_to_the_surface_of_a_ball(spacing, size):
    """Marching cubes overestimate the surface of a ball of voxels by a tenth, for every radius."""
    radius = 12.0
    axes = [np.arange(-radius - 2, radius + 2, step) for step in spacing]
    ball = sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij")) < radius**2
    measured = weigh_surfels(ball, spacing).sum()
    assert measured == pytest.approx(size * radius ** (len(spacing) - 1), rel=0.12)
    wider = tuple(2 * step for step in spacing)
    assert weigh_surfels(ball, wider).sum() == pytest.approx(measured * 2 ** (len(spacing) - 1))


def test_the_bounding_box_is_the_smallest_around_the_mask():
    mask = np.zeros((7, 8, 9), dtype=bool)
    mask[2, 3, 4] = mask[5, 3, 8] = True
    assert find_bounding_box(mask) == (slice(2, 6), slice(3, 4), slice(4, 9))


def test_a_margin_around_the_masks_changes_no_distance():
    (ours, theirs), spacing = blobs(3, 1), SPACINGS[3]
    for convention in CONVENTIONS:
        near = surface_distances(ours, theirs, spacing, convention)
        far = surface_distances(*(np.pad(mask, 3) for mask in (ours, theirs)), spacing, convention)
        np.testing.assert_array_equal(near.to_reference, far.to_reference)
        np.testing.assert_array_equal(near.reference_weights, far.reference_weights)
