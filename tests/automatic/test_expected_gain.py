"""The exported model is the better bet: a posterior of the gain, from cases and earlier data."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm
from scipy.stats import t as student_t

from semi_nnunet.automatic.expected_gain import (
    HARM,
    SPREAD_WEIGHT,
    USUAL_SPREAD,
    ExpectedGain,
    GainPrior,
)

PRIOR = GainPrior(mean=0.01, spread=0.02)


def test_the_posterior_is_that_of_a_grid_of_gains():
    differences = np.random.default_rng(0).normal(0.03, 0.05, 20)
    gain = ExpectedGain.after(differences.tolist(), PRIOR)

    grid = np.linspace(-0.3, 0.3, 60_001)
    squares = ((differences - differences.mean()) ** 2).sum() + SPREAD_WEIGHT * USUAL_SPREAD**2
    scale = np.sqrt(squares / (19 + SPREAD_WEIGHT) / 20)
    error = student_t(19 + SPREAD_WEIGHT, scale=scale).std()  # of the mean of the cases
    weight = norm.pdf(grid, PRIOR.mean, PRIOR.spread) * norm.pdf(differences.mean(), grid, error)
    weight /= weight.sum()
    mean = (grid * weight).sum()
    assert gain.mean == pytest.approx(mean, abs=1e-6)
    assert gain.spread == pytest.approx(np.sqrt(((grid - mean) ** 2 * weight).sum()), abs=1e-6)
    assert gain.probability_below(-HARM) == pytest.approx(weight[grid < -HARM].sum(), abs=1e-4)


def test_many_cases_outweigh_the_prior_and_no_case_leaves_it_as_it_is():
    differences = np.random.default_rng(0).normal(-0.03, 0.05, 5000)
    assert ExpectedGain.after(differences.tolist(), PRIOR).mean == pytest.approx(-0.03, abs=3e-3)
    none = ExpectedGain.after([], PRIOR)
    assert (none.mean, none.spread) == (PRIOR.mean, PRIOR.spread)


def test_each_case_counts_and_a_large_loss_of_three_cases_is_believed():
    one, three = (ExpectedGain.after([-0.2] * count, PRIOR) for count in (1, 3))
    assert three.mean < one.mean < PRIOR.mean and three.spread < one.spread < PRIOR.spread
    assert three.mean < -0.01 and not three.is_worth_exporting()


def test_equal_cases_leave_some_doubt():
    gain = ExpectedGain.after([0.02] * 5, PRIOR)
    assert 0.01 < gain.mean < 0.02 and 0 < gain.probability_below(0.0) < 0.2


@pytest.mark.parametrize(
    ("mean", "spread", "is_exported"),
    [
        (0.02, 0.01, True),
        (0.001, 0.001, True),
        (0.0, 0.001, False),
        (-0.01, 0.001, False),
        (0.01, 0.05, False),  # the probability of losing more than a point is .34
    ],
)
def test_a_model_is_exported_if_a_gain_is_expected_and_harm_is_unlikely(mean, spread, is_exported):
    assert ExpectedGain(mean, spread).is_worth_exporting() is is_exported


def test_the_risk_limit_is_the_probability_of_losing_more_than_a_point():
    gain = ExpectedGain(0.01, 0.05)
    risk = gain.probability_below(-HARM)
    assert gain.is_worth_exporting(risk_limit=risk) and not gain.is_worth_exporting(risk - 1e-9)


def test_every_data_set_counts_the_same_in_the_prior():
    many, few = [0.1] * 50, [0.0]
    assert GainPrior.of_gains([many, few]).mean == pytest.approx(0.05)
    assert GainPrior.of_gains([[0.0, 0.04], [0.0, 0.04]]).spread == pytest.approx(0.02)
