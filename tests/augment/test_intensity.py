"""Every appearance change."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from semi_nnunet.augment.intensity import (
    Brightness,
    Gamma,
    GaussianBlur,
    GaussianNoise,
    add_clamped_noise,
    make_appearance_changes,
)

CHANGES = {
    "brightness": lambda p: Brightness(0.3, 0.3, p),
    "gamma": lambda p: Gamma(0.6, p),
    "noise": lambda p: GaussianNoise(0.3, p),
    "blur": lambda p: GaussianBlur(0.5, 1.0, p),
}
SHAPES = {"2d": (4, 2, 9, 8), "3d": (3, 2, 5, 7, 6)}
each_change = pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
each_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


# ---- what every change must do


@each_shape
@each_change
def test_a_batch_is_transformed_like_its_samples(change, shape):
    x, transform = torch.randn(shape), change(1.0)
    params = transform.sample_params(x)
    batch = transform.apply(x, params)
    for b in range(shape[0]):
        sample = transform.apply(x[b : b + 1], {k: v[b : b + 1] for k, v in params.items()})
        torch.testing.assert_close(sample[0], batch[b])


@each_shape
@each_change
def test_apply_is_deterministic_and_leaves_its_input(change, shape):
    x, transform = torch.randn(shape), change(1.0)
    original, params = x.clone(), transform.sample_params(x)
    assert torch.equal(transform.apply(x, params), transform.apply(x, params))
    assert torch.equal(x, original)


@each_shape
@each_change
def test_the_same_seed_gives_the_same_view_and_another_seed_another(change, shape):
    x, transform = torch.randn(shape), change(1.0)
    views = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        views.append(transform(x))
    assert torch.equal(views[0], views[1])
    assert not torch.equal(views[0], views[2])


@each_shape
@each_change
def test_probability_zero_is_the_identity(change, shape):
    x = torch.randn(shape)
    assert torch.equal(change(0.0)(x), x)


@each_shape
@each_change
def test_probability_one_changes_every_sample_differently(change, shape):
    x = torch.randn(1, *shape[1:]).expand(shape)
    y = change(1.0)(x)
    assert y.shape == x.shape
    for b in range(shape[0]):
        assert not torch.equal(y[b], x[b])
        assert not torch.equal(y[b], y[b - 1])


@each_shape
@each_change
@pytest.mark.parametrize("value", [0.0, -3.5, 1e4])
def test_constant_images_stay_finite(change, shape, value):
    assert change(1.0)(torch.full(shape, value)).isfinite().all()


@each_shape
@each_change
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_dtype_and_device_are_kept(change, shape, dtype, probability):
    x = torch.randn(shape).to(dtype)
    y = change(probability)(x)
    assert y.dtype == dtype and y.device == x.device


# ---- what each change does


def test_brightness_is_affine_with_parameters_in_their_ranges():
    x, transform = torch.randn(500, 2, 3, 3), Brightness(0.3, 0.2)
    params = transform.sample_params(x)
    assert (params["factor"] - 1).abs().max() <= 0.3 and params["shift"].abs().max() <= 0.2
    assert (params["factor"] - 1).abs().max() > 0.25 and params["shift"].abs().max() > 0.15
    y = transform.apply(x, params)
    assert y[7, 1, 2, 0].item() == pytest.approx(
        (x[7, 1, 2, 0] * params["factor"][7, 1] + params["shift"][7, 1]).item()
    )


@each_shape
def test_gamma_keeps_the_range_and_the_order_of_each_channel(shape):
    x = 50 * torch.randn(shape) - 20
    y = Gamma(1.0, 1.0)(x)
    axes = tuple(range(2, x.ndim))
    torch.testing.assert_close(y.amin(axes), x.amin(axes))
    torch.testing.assert_close(y.amax(axes), x.amax(axes))
    order = x.flatten(2).argsort(2)
    assert (y.flatten(2).gather(2, order).diff(dim=2) >= -1e-4).all()


def test_gamma_equals_a_hand_written_power():
    x = torch.tensor([0.0, 1.0, 2.0, 4.0]).view(1, 1, 2, 2)
    y = Gamma(0.6).apply(x, {"gamma": torch.tensor([[2.0]])})
    torch.testing.assert_close(y.flatten(), torch.tensor([0.0, 0.25, 1.0, 4.0]))


def test_noise_has_the_drawn_standard_deviation():
    x = torch.randn(3, 1, 100, 100)
    params = GaussianNoise(0.3).sample_params(x)
    residue = GaussianNoise(0.3).apply(x, params) - x
    torch.testing.assert_close(residue.std((1, 2, 3)), params["sd"], rtol=0.05, atol=0)
    assert (params["sd"] <= 0.3).all()


@pytest.mark.parametrize("shape", [(2, 2, 9, 8), (2, 1, 6, 7, 8), (1, 1, 1, 8, 8)])
def test_blur_equals_scipys_gaussian_filter(shape):
    x, sigmas = torch.randn(shape), torch.tensor([0.5, 0.9])[: shape[0]]
    y = GaussianBlur(0.5, 1.0).apply(x, {"sigma": sigmas})
    for b, c in np.ndindex(*shape[:2]):
        expected = gaussian_filter(
            x[b, c].numpy(), float(sigmas[b]), mode="nearest", radius=GaussianBlur.radius
        )
        np.testing.assert_allclose(y[b, c].numpy(), expected, atol=1e-5)


def test_blur_of_no_width_is_the_identity():
    x = torch.randn(1, 1, 5, 5)
    assert torch.equal(GaussianBlur(0, 0).apply(x, {"sigma": torch.zeros(1)}), x)


def test_clamped_noise_is_clamped_at_two_sd_and_centred():
    x = torch.ones(2, 1, 100, 100)
    noise = add_clamped_noise(x, 0.1) - x
    assert noise.abs().max().item() == pytest.approx(0.2)
    assert noise.mean().item() == pytest.approx(0, abs=0.005)
    assert noise.std().item() == pytest.approx(0.1, rel=0.1)
    assert add_clamped_noise(x, 0.0) is x


# ---- all of them together


@pytest.mark.parametrize(("strength", "probability"), [(0, 0.5), (1, 0)])
def test_without_strength_or_probability_nothing_changes(strength, probability):
    assert make_appearance_changes(strength, probability) == []


@each_shape
@pytest.mark.parametrize("strength", [0.1, 1.0, 2.0, 10.0])
def test_any_strength_gives_finite_images(shape, strength):
    x = torch.randn(shape)
    for change in make_appearance_changes(strength, 1.0):
        x = change(x)
    assert x.isfinite().all() and x.shape == shape


def test_a_greater_strength_changes_more():
    x = torch.randn(64, 1, 16, 16)
    distances = []
    for strength in (0.2, 1.0, 2.0):
        torch.manual_seed(0)
        y = x
        for change in make_appearance_changes(strength, 1.0):
            y = change(y)
        distances.append((y - x).abs().mean().item())
    assert distances == sorted(distances)
