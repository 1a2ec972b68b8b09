"""Images are resampled axis by axis to nnU-Net's numbers."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

from semi_nnunet.inference.resampling import make_spline_matrix, resample_image_to_grid

NNUNETS = partial(
    resample_data_or_seg_to_shape, is_seg=False, order=3, order_z=0, force_separate_z=None
)


def image(*shape: int) -> np.ndarray:
    """Noise next to a flat region with a sharp edge, at which splines overshoot."""
    data = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    data[:, :, : shape[2] // 3] = -3.0
    return data


@pytest.mark.parametrize(
    ("shape", "target", "spacing", "other"),
    [
        ((20, 40, 50), (30, 25, 61), (2, 1, 1), (1.4, 1.6, 0.8)),
        ((20, 40, 50), (7, 40, 50), (1, 1, 1), (2.8, 1, 1)),
        ((20, 40, 50), (13, 25, 61), (5, 1, 1), (8, 1.6, 0.8)),  # thick slices, fewer
        ((20, 40, 50), (31, 25, 61), (5, 1, 1), (3.2, 1.6, 0.8)),  # and more
        ((20, 40, 50), (20, 25, 61), (5, 1, 1), (5, 1.6, 0.8)),  # and as many
        ((1, 40, 50), (1, 25, 61), (999, 1, 1), (999, 1.6, 0.8)),
        ((4, 30, 40), (4, 60, 13), (1, 5, 1), (1, 2.5, 3.1)),  # thick along another axis
        ((5, 3, 2), (9, 2, 3), (1, 1, 1), (0.5, 1.5, 0.7)),
    ],
)
def test_resampled_images_equal_nnunets(shape: Any, target: Any, spacing: Any, other: Any) -> None:
    data = image(2, *shape)
    copy = data.copy()
    resampled = resample_image_to_grid(data, target, spacing, other, NNUNETS)
    expected = NNUNETS(data, target, spacing, other)
    assert resampled.dtype == np.float32 and resampled.shape == (2, *target)
    np.testing.assert_allclose(resampled, expected, atol=5e-6)
    assert resampled.min() >= data.min() and resampled.max() <= data.max()
    assert np.array_equal(data, copy)


def test_the_same_grid_changes_nothing() -> None:
    data = image(1, 4, 6, 9)
    assert resample_image_to_grid(data, (4, 6, 9), (1, 1, 1), (1, 1, 1), NNUNETS) is data


def test_another_resampling_function_is_called_unchanged() -> None:
    data, calls = image(1, 4, 6, 9), []

    def other(*words: Any) -> np.ndarray:
        calls.append(words)
        return np.full((1, 2, 3, 4), 7.0, np.float32)

    assert (resample_image_to_grid(data, (2, 3, 4), (1, 1, 1), (2, 2, 2), other) == 7).all()
    assert len(calls) == 1
    linear = partial(NNUNETS, order=1)
    resampled = resample_image_to_grid(data, (2, 3, 4), (1, 1, 1), (2, 2, 2), linear)
    assert np.array_equal(resampled, linear(data, (2, 3, 4), (1, 1, 1), (2, 2, 2)))


def test_a_matrix_keeps_constants() -> None:
    for size, target in ((1, 5), (2, 3), (17, 9), (9, 30)):
        np.testing.assert_allclose(make_spline_matrix(size, target).sum(1), 1, atol=1e-6)
