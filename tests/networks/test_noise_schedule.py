"""Diffusion of labels, by hand and against diffusers."""

import math

import pytest
import torch

from semi_nnunet.networks.label_diffusion import NoiseSchedule


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


def alpha_bar_by_hand(t: int) -> float:
    return math.prod(1 - (1e-4 + (0.02 - 1e-4) * i / 999) for i in range(t + 1))


def test_alpha_bar_is_the_product_of_the_paper():
    schedule = NoiseSchedule()
    for t in (0, 1, 500, 999):
        assert schedule.alpha_bar[t].item() == pytest.approx(alpha_bar_by_hand(t), rel=1e-5)


def test_noising_by_hand():
    schedule = NoiseSchedule()
    x_0, noise, t = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4), torch.tensor([10, 900])
    x_t = schedule.q_sample(x_0, t, noise)
    for sample, time in enumerate(t.tolist()):
        a = alpha_bar_by_hand(time)
        expected = math.sqrt(a) * x_0[sample] + math.sqrt(1 - a) * noise[sample]
        torch.testing.assert_close(x_t[sample], expected, rtol=0, atol=1e-5)


def test_schedule_agrees_with_diffusers():
    diffusers = pytest.importorskip("diffusers", reason="in the extra 'test'")
    theirs = diffusers.DDIMScheduler(
        1000, 1e-4, 0.02, "linear", clip_sample=False, prediction_type="sample",
        set_alpha_to_one=False,
    )  # fmt: skip
    ours = NoiseSchedule()
    torch.testing.assert_close(ours.alpha_bar, theirs.alphas_cumprod)
    x, x_0 = torch.randn(2, 3, 5, 5), torch.randn(2, 3, 5, 5)
    noise, t = torch.randn(2, 3, 5, 5), torch.tensor([7, 800])
    torch.testing.assert_close(ours.q_sample(x_0, t, noise), theirs.add_noise(x_0, noise, t))
    theirs.set_timesteps(10)  # 900, 800, ... 0
    for time in theirs.timesteps[:-1]:
        their_step = theirs.step(x_0, int(time), x).prev_sample
        times = [torch.full((2,), int(value)) for value in (time, time - 100)]
        torch.testing.assert_close(ours.ddim_step(x, x_0, *times), their_step, rtol=0, atol=1e-5)


def test_sampling_visits_the_times_of_the_authors():
    schedule = NoiseSchedule()
    assert schedule.sampling_times(10) == [999, 888, 777, 666, 555, 444, 333, 222, 111, 0]
    assert schedule.sampling_times(1) == [999]


def test_a_perfect_prediction_is_found_in_any_number_of_steps():
    schedule, truth = NoiseSchedule(), torch.randn(2, 3, 6, 6)
    steps = []

    def predict(x_t, t):
        steps.append(t.tolist())
        return truth

    for count in (1, 2, 10):
        steps.clear()
        sampled = schedule.ddim(predict, lambda p: p, torch.randn_like(truth), count)
        assert torch.equal(sampled, truth) and len(steps) == count


def test_deterministic_sampling_stays_on_the_line_between_noise_and_truth():
    """With a perfect prediction, every x_t has the noise that sampling started from."""
    schedule = NoiseSchedule()
    x_0, noise = torch.randn(1, 2, 4, 4), torch.randn(1, 2, 4, 4)
    t, t_next = torch.tensor([700]), torch.tensor([200])
    result = schedule.ddim_step(schedule.q_sample(x_0, t, noise), x_0, t, t_next)
    expected = schedule.q_sample(x_0, t_next, noise)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-5)


def test_times_are_uniform_or_drawn_towards_the_end():
    schedule = NoiseSchedule()
    uniform, late = schedule.sample_t(20000, 1.0), schedule.sample_t(20000, 3.0)
    assert uniform.min() >= 0 and late.max() == 999
    assert uniform.float().mean().item() == pytest.approx(499.5, abs=10)
    assert late.float().mean().item() == pytest.approx(749.5, abs=10)  # T * 3 / 4
