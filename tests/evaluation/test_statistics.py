"""Paired statistics, against known results and simulations."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semi_nnunet.evaluation.statistics import (
    bootstrap_interval,
    find_doubts,
    holm,
    judge_difference,
    paired_difference,
)


def test_mean_and_counts_leave_out_undefined_cases():
    difference = paired_difference([0.1, -0.2, float("nan"), 0.4, 0.0])
    assert difference.mean == pytest.approx(0.075)
    assert (difference.cases, difference.better) == (4, 2)
    assert paired_difference([-1.0, 2.0], higher_is_better=False).better == 1
    with pytest.raises(ValueError, match="got none"):
        paired_difference([float("nan")])


def test_p_equals_the_share_of_all_sign_flips():
    values = np.array([0.5, 1.2, -0.3, 2.0, 0.9, 1.1, -0.1])
    ranks = np.argsort(np.argsort(np.abs(values))) + 1
    observed = ranks[values > 0].sum()
    sums = [ranks[list(map(bool, signs))].sum() for signs in itertools.product((0, 1), repeat=7)]
    middle = ranks.sum() / 2
    extreme = np.mean([abs(s - middle) >= abs(observed - middle) for s in sums])
    assert paired_difference(values).p == pytest.approx(extreme)


def test_no_difference_at_all_is_no_evidence():
    difference = paired_difference([0.0] * 8)
    assert (difference.mean, difference.low, difference.high, difference.p) == (0, 0, 0, 1)
    assert judge_difference(difference, difference.p).startswith("no evidence")


def test_one_case_gives_no_interval():
    difference = paired_difference([0.3])
    assert math.isnan(difference.low) and math.isnan(difference.high)
    assert judge_difference(difference, 0.001).startswith("no evidence")


def test_the_interval_covers_the_true_mean_about_95_times_in_a_hundred(monkeypatch):
    monkeypatch.setattr("semi_nnunet.evaluation.statistics.RESAMPLES", 1000)
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        low, high = bootstrap_interval(rng.gamma(2.0, 1.0, (30, 1)))
        covered += low <= 2.0 <= high
    assert 0.88 <= covered / 200 <= 0.98


def test_the_interval_is_the_same_every_time_and_survives_one_outlier():
    values = np.array([[0.0]] * 9 + [[1.0]])
    low, high = bootstrap_interval(values)
    assert (low, high) == bootstrap_interval(values)
    assert low <= 0.1 <= high and not math.isnan(low)


def test_chance_of_trainings_widens_the_interval(monkeypatch):
    """Twenty similar cases, five different seeds: an interval over cases only is far too narrow."""
    monkeypatch.setattr("semi_nnunet.evaluation.statistics.RESAMPLES", 1000)
    rng = np.random.default_rng(0)
    covered = np.zeros(2)
    for _ in range(200):
        values = rng.normal(0, 1, (1, 5)) + rng.normal(0, 1, (20, 1)) + rng.normal(0, 1, (20, 5))
        for index, observed in enumerate((values, values.mean(1, keepdims=True))):
            low, high = bootstrap_interval(observed)
            covered[index] += low <= 0 <= high
    cases_and_seeds, cases_only = covered / 200
    assert cases_and_seeds > 0.85 and cases_only < 0.7


def test_one_of_three_seeds_without_a_gain_prevents_evidence():
    case_gains = np.linspace(0.01, 0.02, 30)[:, None]
    agreed = paired_difference(case_gains * [1.0, 2.0, 3.0])
    assert judge_difference(agreed, agreed.p) == "higher"
    one_against = paired_difference(case_gains * [2.0, 2.0, -1.0])
    assert one_against.mean > 0 and one_against.p < 0.001
    assert judge_difference(one_against, one_against.p).startswith("no evidence")


def test_a_case_that_one_seed_lacks_is_judged_by_the_other_seeds():
    values = np.array([[0.1, 0.3], [0.2, np.nan], [np.nan, 0.4], [np.nan, np.nan]])
    difference = paired_difference(values)
    assert difference.mean == pytest.approx((0.2 + 0.2 + 0.4) / 3) and difference.cases == 3
    assert 0.1 <= difference.low <= difference.mean <= difference.high
    assert difference.high == pytest.approx(0.4)


def test_the_crossed_interval_equals_that_of_single_draws():
    rng = np.random.default_rng(1)
    values = rng.normal(0.1, 1, (6, 3))
    means = [
        values[np.ix_(rng.integers(0, 6, 6), rng.integers(0, 3, 3))].mean() for _ in range(20_000)
    ]
    difference = paired_difference(values)
    assert (difference.low, difference.high) == pytest.approx(
        np.quantile(means, (0.025, 0.975)), abs=0.03
    )


def test_holm_agrees_with_values_computed_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5]) == [0.5]
    assert holm([0.9, 0.8]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_only_raises_p_values_and_keeps_their_order(p_values):
    adjusted = holm(p_values)
    assert all(a >= p and a <= 1 for a, p in zip(adjusted, p_values, strict=True))
    for (a, p), (b, q) in itertools.combinations(zip(adjusted, p_values, strict=True), 2):
        assert (p > q) <= (a >= b)


def test_evidence_needs_the_interval_and_the_corrected_test():
    better = paired_difference([0.02, 0.03, 0.01, 0.04, 0.02, 0.03, 0.05, 0.01])
    assert judge_difference(better, better.p) == "higher"
    assert judge_difference(better, 0.2).startswith("no evidence")
    assert find_doubts(better, better.p) == []
    assert find_doubts(better, 0.2) == ["p is not below 0.05"]
    open_difference = paired_difference([0.02, -0.03, 0.01, -0.04])
    assert find_doubts(open_difference, open_difference.p) == [
        "the interval contains 0",
        "p is not below 0.05",
    ]
    worse = paired_difference([-v for v in (0.02, 0.03, 0.01, 0.04, 0.02, 0.03, 0.05, 0.01)])
    assert judge_difference(worse, worse.p) == "lower"
