"""Paired statistics, against what is known of them and simulations."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semi_nnunet.evaluation.statistics import (
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
        low, high = interval_of_mean(rng.gamma(2.0, 1.0, 30))
        covered += low <= 2.0 <= high
    assert 0.88 <= covered / 200 <= 0.98


def test_the_interval_is_the_same_every_time_and_survives_one_outlier():
    values = np.array([0.0] * 9 + [1.0])
    low, high = interval_of_mean(values)
    assert (low, high) == interval_of_mean(values)
    assert low <= 0.1 <= high and not math.isnan(low)


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
    worse = paired_difference([-v for v in (0.02, 0.03, 0.01, 0.04, 0.02, 0.03, 0.05, 0.01)])
    assert verdict(worse, worse.p) == "lower"
