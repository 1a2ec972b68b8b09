"""Appearance changes of rows; equality with nnU-Net is tested with the steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.noise.gaussian_blur import _build_kernel
from scipy.ndimage import gaussian_filter

from semi_nnunet.augment.batched import (
    add_noise,
    blur,
    change_contrast,
    change_row_gamma,
    kernel_radius,
    list_kernel_weights,
    lower_resolution,
    multiply,
)

ROWS = {"2d": (5, 14, 11), "3d": (4, 9, 10, 12)}
each_shape = pytest.mark.parametrize("shape", ROWS.values(), ids=ROWS)
CHANGES = {
    "blur": lambda rows: blur(rows, [torch.full((len(rows), 3), 1 / 3)] * (rows.ndim - 1)),
    "brightness": lambda rows: multiply(rows, torch.linspace(0.5, 2, len(rows))),
    "contrast": lambda rows: change_contrast(rows, torch.linspace(0.5, 2, len(rows)), True),
    "low resolution": lambda rows: lower_resolution(
        rows, [[4 + row] * (rows.ndim - 1) for row in range(len(rows))]
    ),
    "gamma": lambda rows: change_row_gamma(
        rows, torch.linspace(0.5, 2, len(rows)), torch.ones(len(rows)), torch.ones(len(rows))
    ),
}


@each_shape
@pytest.mark.parametrize("name", CHANGES)
def test_rows_are_new_and_finite_also_of_constant_images(shape, name):
    rows = torch.randn(shape)
    rows[0] = 3.25
    original = rows.clone()
    changed = CHANGES[name](rows)
    assert torch.equal(rows, original) and changed.shape == rows.shape
    assert changed.isfinite().all() and not torch.equal(changed[1:], rows[1:])


@pytest.mark.parametrize("sigma", [0.1, 0.3, 0.5, 0.59, 0.75, 0.76, 0.92, 1.0, 1.7, 3.0])
def test_kernels_are_those_of_batchgenerators(sigma):
    expected = _build_kernel(sigma, truncate=6)
    radius = kernel_radius(sigma)
    assert 2 * radius + 1 == len(expected)
    wider = torch.tensor(list_kernel_weights(sigma, radius + 2))
    torch.testing.assert_close(wider[2:-2], expected, rtol=1e-5, atol=1e-7)
    assert (wider[:2] == 0).all() and (wider[-2:] == 0).all()


def test_blur_is_scipys_with_a_width_for_each_row_and_axis():
    rows, sigmas = torch.randn(2, 16, 18, 17), [[0.5, 0.8, 1.0], [1.0, 0.6, 0.5]]
    radius = 3
    kernels = [
        torch.tensor([list_kernel_weights(row[axis], radius) for row in sigmas])
        for axis in range(3)
    ]
    for row, row_sigmas, blurred in zip(rows, sigmas, blur(rows, kernels), strict=True):
        expected = row.numpy()
        for axis, sigma in enumerate(row_sigmas):
            width = kernel_radius(sigma)
            expected = gaussian_filter(expected, sigma, mode="mirror", radius=width, axes=axis)
        np.testing.assert_allclose(blurred.numpy(), expected, atol=1e-5)


def test_noise_has_its_standard_deviation():
    rows = torch.full((3, 200, 200), 2.0)
    sd = torch.tensor([0.0, 0.1, 0.5])
    changed = add_noise(rows, sd, 7) - rows
    assert torch.equal(add_noise(rows, sd, 7) - rows, changed)
    assert not torch.equal(add_noise(rows, sd, 8) - rows, changed)
    torch.testing.assert_close(
        changed.flatten(1).std(1), torch.tensor([0.0, 0.1, 0.5]), rtol=0.02, atol=1e-6
    )
    assert changed.mean().abs() < 0.01


def test_contrast_keeps_the_mean_and_the_range_if_asked():
    rows, factors = torch.randn(3, 40, 40), torch.tensor([0.5, 1.0, 3.0])
    free, clamped = (change_contrast(rows, factors, flag) for flag in (False, True))
    torch.testing.assert_close(free.mean((1, 2)), rows.mean((1, 2)), rtol=0, atol=1e-5)
    torch.testing.assert_close(free.std((1, 2)), rows.std((1, 2)) * factors)
    assert (clamped.amax((1, 2)) <= rows.amax((1, 2))).all() and free[2].max() > rows[2].max()


def test_gamma_keeps_statistics_if_asked_and_the_order_of_values():
    rows = torch.rand(4, 30, 30) * 5 - 1
    sign, keeps = torch.tensor([1.0, -1, 1, -1]), torch.tensor([1.0, 1, 0, 0])
    changed = change_row_gamma(rows, torch.full((4,), 1.4), sign, keeps)
    torch.testing.assert_close(changed[:2].mean((1, 2)), rows[:2].mean((1, 2)))
    torch.testing.assert_close(changed[:2].std((1, 2)), rows[:2].std((1, 2)))
    for old, new, direction in zip(rows[2:], changed[2:], (1, -1), strict=True):
        torch.testing.assert_close(new.aminmax(), old.aminmax())
        assert direction * new.mean() < direction * old.mean()
    order = rows.flatten(1).argsort(1)
    assert (changed.flatten(1).gather(1, order).diff(dim=1) >= -1e-5).all()


def test_at_full_resolution_nothing_is_lost():
    rows = torch.randn(2, 8, 9)
    torch.testing.assert_close(lower_resolution(rows, [(8, 9), (8, 9)]), rows)
