"""Noising, denoising and sampling of labels."""

import math
from typing import Any

import pytest
import torch
from scipy.ndimage import correlate1d
from torch import nn

from semi_nnunet.core.pseudo_labels import to_probs
from semi_nnunet.networks.label_diffusion import LabelDiffusion, smooth_probs
from tests.networks.unets import branches

DEFAULTS: dict[str, Any] = {
    "exclusive": True,
    "label_scale": 0.2,
    "time_power": 3.0,
    "sampling_steps": 1,
    "clamped_logits": False,
    "reparameterised": False,
}


def diffusion(**settings: Any) -> tuple[Any, LabelDiffusion]:
    """Return the encoder of the student, and the diffusion model."""
    student, added = branches("plain", 2)
    return student.encoder, LabelDiffusion(added, **{**DEFAULTS, **settings})


def one_hot(classes: int = 3) -> torch.Tensor:
    torch.manual_seed(1)
    labels = torch.randint(classes, (2, 8, 8))
    return nn.functional.one_hot(labels, classes).movedim(-1, 1).float()


# ---- x_0 ----


def test_labels_and_certain_predictions_have_the_same_signal():
    _, model = diffusion(label_scale=0.3)
    target = one_hot()
    assert model.to_signal(target).unique().tolist() == pytest.approx([-0.3, 0.3])
    torch.testing.assert_close(model.from_logits(100 * target), model.to_signal(target))
    _, regions = diffusion(label_scale=0.3, exclusive=False)
    logits = 200 * target - 100
    torch.testing.assert_close(regions.from_logits(logits), regions.to_signal(target))


def test_clamped_logits_are_the_papers():
    _, model = diffusion(clamped_logits=True)
    logits = torch.tensor([-3.0, 0.5, 2.0]).view(1, 3, 1, 1)
    assert model.from_logits(logits).flatten().tolist() == [-1.0, 0.5, 1.0]


# ---- training ----


def test_voxels_outside_the_mask_do_not_affect_the_noised_labels():
    encoder, model = diffusion()
    x, target = torch.randn(2, 2, 8, 8), one_hot()
    mask = torch.rand(2, 1, 8, 8) > 0.5
    other = one_hot().roll(1, dims=1)

    def logits(target: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(3)
        return model.denoise_labels(encoder, x, target, mask)

    assert not torch.equal(target, other)
    elsewhere = torch.where(mask, target, other)
    assert torch.equal(logits(target, mask), logits(elsewhere, mask))
    assert not torch.equal(logits(target, mask), logits(torch.where(mask, other, target), mask))
    assert not torch.equal(logits(target, mask), logits(target, torch.ones_like(mask)))
    unmasked = logits(target, torch.zeros_like(mask))  # nothing is known: of pure noise
    torch.manual_seed(3)
    t, noise = model.schedule.sample_t(2, 3.0), torch.randn_like(target)
    x_t = (1 - model.schedule.alpha_bar[t]).sqrt().view(2, 1, 1, 1) * noise
    torch.testing.assert_close(unmasked, model.branches.denoise(encoder, x, x_t, t))


def test_labels_are_noised_as_in_ddpm_at_times_of_the_given_density():
    encoder, model = diffusion(time_power=3.0)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    model.branches.denoise = lambda encoder, x, x_t, t: (seen.append((x_t, t)), x_t)[1]
    target = one_hot()[:1, :, :2, :2].expand(4000, -1, -1, -1)
    model.denoise_labels(encoder, target[:, :2], target, torch.ones_like(target[:, :1]))
    ((x_t, t),) = seen
    # P(t < u T) = u^3
    for u in (0.25, 0.5, 0.75):
        assert (t < u * 1000).float().mean().item() == pytest.approx(u**3, abs=0.03)
    late = t > 900  # almost pure noise
    assert x_t[late].mean().item() == pytest.approx(0, abs=0.05)
    assert x_t[late].std().item() == pytest.approx(1, abs=0.05)


# ---- sampling ----


def by_hand(
    model: LabelDiffusion, encoder: nn.Module, x: torch.Tensor, x_t: torch.Tensor, count: int
):
    """DDIM (Song et al. 2021, eq. 12, eta = 0) from T - 1 to 0, in double precision."""
    betas = [1e-4 + (0.02 - 1e-4) * i / 999 for i in range(1000)]
    alpha_bar = [math.prod(1 - beta for beta in betas[: i + 1]) for i in range(1000)]
    times = [999] if count == 1 else [round(999 * i / (count - 1)) for i in range(count)][::-1]
    for time, next_time in zip(times, [*times[1:], None], strict=True):
        t = torch.full((len(x),), time)
        logits = model.branches.denoise(encoder, x, x_t.float(), t).double()
        if next_time is None:
            return torch.softmax(logits, 1)
        x_0 = model.label_scale * (2 * torch.softmax(logits, 1) - 1)
        noise = (x_t - math.sqrt(alpha_bar[time]) * x_0) / math.sqrt(1 - alpha_bar[time])
        x_t = math.sqrt(alpha_bar[next_time]) * x_0 + math.sqrt(1 - alpha_bar[next_time]) * noise
    raise AssertionError


@pytest.mark.parametrize("count", [1, 2, 5])
def test_sampling_is_the_papers_loop(count):
    encoder, model = diffusion(sampling_steps=count)
    x = torch.randn(2, 2, 8, 8)
    torch.manual_seed(4)
    sampled = model.xi_probs(encoder, x)
    torch.manual_seed(4)
    noise = torch.randn(2, 3, 8, 8).double()
    with torch.no_grad():
        expected = by_hand(model, encoder, x, noise, count)
    torch.testing.assert_close(sampled.double(), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("exclusive", [True, False])
def test_psi_is_deterministic(exclusive):
    encoder, model = diffusion(exclusive=exclusive)
    x = torch.randn(2, 2, 8, 8)
    logits = model.branches.predict_psi(encoder, x)
    torch.testing.assert_close(model.psi_probs(encoder, x), to_probs(logits, exclusive).detach())
    assert torch.equal(model.psi_probs(encoder, x), model.psi_probs(encoder, x))


@pytest.mark.parametrize("reparameterised", [True, False])
@pytest.mark.parametrize("exclusive", [True, False])
def test_samples_are_probabilities_without_gradient(exclusive, reparameterised):
    encoder, model = diffusion(exclusive=exclusive, reparameterised=reparameterised)
    x = torch.randn(2, 2, 8, 8)
    for probs in (model.xi_probs(encoder, x), model.psi_probs(encoder, x)):
        assert probs.shape == (2, 3, 8, 8) and not probs.requires_grad
        assert probs.min() >= 0 and probs.max() <= 1
        inner = probs[:, :, 1:-1, 1:-1].sum(1)  # smoothing has zeros beyond the border
        assert torch.allclose(inner, torch.ones_like(inner), atol=1e-5) == exclusive


# ---- smoothing ----


@pytest.mark.parametrize("dimensions", [2, 3])
def test_smoothing_is_a_gaussian_of_three_voxels(dimensions):
    probs = torch.rand(2, 3, *[6] * dimensions)
    expected = probs.double().numpy()
    kernel = torch.exp(-torch.tensor([1.0, 0.0, 1.0]).double() / 2)
    for axis in range(2, 2 + dimensions):
        expected = correlate1d(expected, (kernel / kernel.sum()).numpy(), axis, mode="constant")
    torch.testing.assert_close(
        smooth_probs(probs).double(), torch.from_numpy(expected), atol=1e-6, rtol=0
    )
