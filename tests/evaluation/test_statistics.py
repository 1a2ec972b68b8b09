"""Paired statistics, against what is known of them and simulations."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semi_nnunet.evaluation.statistics import (
    doubts,
    holm,
    interval_of_mean,
    paired_difference,
    verdict,
)


def test_mean_and_counts_leave_out_undefined_cases():
    found = paired_difference([0.1, -0.2, float("nan"), 0.4, 0.0])
    assert found.mean == pytest.approx(0.075)
    assert (found.cases, found.better) == (4, 2)
    assert paired_difference([-1.0, 2.0], higher_is_better=False).better == 1
    with pytest.raises(ValueError, match="got none"):
        paired_difference([float("nan")])


def test_p_is_that_of_all_sign_flips():
    values = np.array([0.5, 1.2, -0.3, 2.0, 0.9, 1.1, -0.1])
    ranks = np.argsort(np.argsort(np.abs(values))) + 1
    observed = ranks[values > 0].sum()
    sums = [ranks[list(map(bool, signs))].sum() for signs in itertools.product((0, 1), repeat=7)]
    middle = ranks.sum() / 2
    extreme = np.mean([abs(s - middle) >= abs(observed - middle) for s in sums])
    assert paired_difference(values).p == pytest.approx(extreme)


def test_no_difference_at_all_is_no_evidence():
    found = paired_difference([0.0] * 8)
    assert (found.mean, found.low, found.high, found.p) == (0, 0, 0, 1)
    assert verdict(found, found.p) == "no evidence of a difference"


def test_one_case_gives_no_interval():
    found = paired_difference([0.3])
    assert math.isnan(found.low) and math.isnan(found.high)
    assert verdict(found, 0.001) == "no evidence of a difference"


def test_the_interval_covers_the_true_mean_about_95_times_in_a_hundred(monkeypatch):
    monkeypatch.setattr("semi_nnunet.evaluation.statistics.RESAMPLES", 1000)
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        low, high = interval_of_mean(rng.gamma(2.0, 1.0, (30, 1)))
        covered += low <= 2.0 <= high
    assert 0.88 <= covered / 200 <= 0.98


def test_the_interval_is_the_same_every_time_and_survives_one_outlier():
    values = np.array([[0.0]] * 9 + [[1.0]])
    low, high = interval_of_mean(values)
    assert (low, high) == interval_of_mean(values)
    assert low <= 0.1 <= high and not math.isnan(low)


def test_chance_of_trainings_widens_the_interval(monkeypatch):
    """Twenty cases alike, five seeds that differ: cases alone promise far too much."""
    monkeypatch.setattr("semi_nnunet.evaluation.statistics.RESAMPLES", 1000)
    rng = np.random.default_rng(0)
    covered = np.zeros(2)
    for _ in range(200):
        values = rng.normal(0, 1, (1, 5)) + rng.normal(0, 1, (20, 1)) + rng.normal(0, 1, (20, 5))
        for which, known in enumerate((values, values.mean(1, keepdims=True))):
            low, high = interval_of_mean(known)
            covered[which] += low <= 0 <= high
    both, cases_alone = covered / 200
    assert both > 0.85 and cases_alone < 0.7


def test_one_of_three_seeds_against_a_gain_stands_against_it():
    of_cases = np.linspace(0.01, 0.02, 30)[:, None]
    agreed = paired_difference(of_cases * [1.0, 2.0, 3.0])
    assert verdict(agreed, agreed.p) == "higher"
    one_against = paired_difference(of_cases * [2.0, 2.0, -1.0])
    assert one_against.mean > 0 and one_against.p < 0.001
    assert verdict(one_against, one_against.p) == "no evidence of a difference"


def test_a_case_that_a_seed_lacks_is_judged_by_the_others():
    values = np.array([[0.1, 0.3], [0.2, np.nan], [np.nan, 0.4], [np.nan, np.nan]])
    found = paired_difference(values)
    assert found.mean == pytest.approx((0.2 + 0.2 + 0.4) / 3) and found.cases == 3
    assert 0.1 <= found.low <= found.mean <= found.high
    assert found.high == pytest.approx(0.4)


def test_the_crossed_interval_is_that_of_draws_one_by_one():
    rng = np.random.default_rng(1)
    values = rng.normal(0.1, 1, (6, 3))
    means = [
        values[np.ix_(rng.integers(0, 6, 6), rng.integers(0, 3, 3))].mean() for _ in range(20_000)
    ]
    found = paired_difference(values)
    assert (found.low, found.high) == pytest.approx(np.quantile(means, (0.025, 0.975)), abs=0.03)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5]) == [0.5]
    assert holm([0.9, 0.8]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_only_raises_and_keeps_the_order(p_values):
    adjusted = holm(p_values)
    assert all(a >= p and a <= 1 for a, p in zip(adjusted, p_values, strict=True))
    for (a, p), (b, q) in itertools.combinations(zip(adjusted, p_values, strict=True), 2):
        assert (p > q) <= (a >= b)


def test_verdict_needs_the_interval_and_the_corrected_test():
    better = paired_difference([0.02, 0.03, 0.01, 0.04, 0.02, 0.03, 0.05, 0.01])
    assert verdict(better, better.p) == "higher"
    assert verdict(better, 0.2) == "no evidence of a difference"
    assert doubts(better, better.p) == [] and doubts(better, 0.2) == ["p is not below 0.05"]
    both = paired_difference([0.02, -0.03, 0.01, -0.04])
    assert doubts(both, both.p) == ["the interval contains 0", "p is not below 0.05"]
    worse = paired_difference([-v for v in (0.02, 0.03, 0.01, 0.04, 0.02, 0.03, 0.05, 0.01)])
    assert verdict(worse, worse.p) == "lower"
