"""Paired differences between a method and the baseline, and the evidence for them.

Where several cases are of one patient, "case" means the mean over the cases of that patient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import bootstrap, wilcoxon

RESAMPLES = 10_000
SEED = 20_221
LEVEL = 0.05  # of the corrected test


@dataclass(frozen=True)
class Difference:
    """Method minus baseline over the same cases.

    Args:
        mean: mean of the cases' differences.
        low: lower end of the 95 % interval of the mean, over cases and, where there are several,
            seeds; NaN for fewer than two cases.
        high: upper end.
        p: of Wilcoxon's signed-rank test, two-sided; 1 if no case differs.
        cases: number of cases.
        better: number of cases in which the method is better.
    """

    mean: float
    low: float
    high: float
    p: float
    cases: int
    better: int


def paired_difference(differences: ArrayLike, higher_is_better: bool = True) -> Difference:
    """Return mean, interval and test of the differences of the cases.

    >>> difference = paired_difference([0.02, 0.01, 0.03, -0.01])
    >>> f"{difference.mean:.4f}, better in {difference.better} of {difference.cases}"
    '0.0125, better in 3 of 4'

    Args:
        differences: (cases,) or (cases, seeds), NaN where a seed lacks a case.
        higher_is_better: whether a positive difference is an improvement.

    Raises:
        ValueError: no difference is a number.
    """
    values = np.asarray(differences, dtype=float)
    values = values.reshape(len(values), -1)
    values = values[~np.isnan(values).all(1)]
    if len(values) == 0:
        raise ValueError("paired_difference needs a case, got none")
    case_means = np.nanmean(values, 1)
    p = float(wilcoxon(case_means, zero_method="zsplit").pvalue) if case_means.any() else 1.0
    better = np.count_nonzero((1 if higher_is_better else -1) * case_means > 0)
    return Difference(
        float(case_means.mean()), *bootstrap_interval(values), p, len(values), int(better)
    )


def bootstrap_interval(values: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of the mean over cases; NaNs for fewer than two cases.

    One seed: bias-corrected and accelerated bootstrap over cases (Efron 1987), or the percentile
    bootstrap if only one difference is unlike the others and the acceleration is undefined. Several
    seeds: cases and seeds are drawn independently (crossed percentile bootstrap, Owen 2007),
    because trainings that differ only by chance may differ more than the cases suggest. With few
    seeds the interval is rather too narrow; with three, one seed without a gain is enough to
    include zero.

    Args:
        values: (cases, seeds), NaN where a seed lacks a case; each case has at least one seed.
    """
    cases, seeds = values.shape
    if cases < 2:
        return float("nan"), float("nan")
    lowest, highest = float(np.nanmin(values)), float(np.nanmax(values))
    if lowest == highest:
        return lowest, highest
    rng = np.random.default_rng(SEED)
    if seeds > 1:
        means = np.concatenate([resample_means(values, 500, rng) for _ in range(RESAMPLES // 500)])
        low, high = np.quantile(means[~np.isnan(means)], (0.025, 0.975))
        return float(low), float(high)
    for method in ("BCa", "percentile"):
        interval = bootstrap(
            (values[:, 0],), np.mean, n_resamples=RESAMPLES, method=method, rng=rng
        ).confidence_interval
        if not np.isnan(interval.low):
            break
    return float(interval.low), float(interval.high)


def resample_means(values: np.ndarray, times: int, rng: np.random.Generator) -> np.ndarray:
    """Draw cases and seeds with replacement, and return the mean of each draw.

    Args:
        values: (cases, seeds), NaN where a seed lacks a case.
        times: number of draws.
        rng: source of the draws.

    Returns:
        (times,) means over cases of means over seeds; NaN if a draw has no value.
    """
    cases, seeds = values.shape
    is_known = ~np.isnan(values)
    case_counts = rng.multinomial(cases, np.full(cases, 1 / cases), times)  # draws of each case
    seed_counts = rng.multinomial(seeds, np.full(seeds, 1 / seeds), times)
    with np.errstate(invalid="ignore"):
        case_means = (seed_counts @ np.nan_to_num(values).T) / (seed_counts @ is_known.T)
        has_seed = ~np.isnan(case_means)
        total = (case_counts * np.nan_to_num(case_means)).sum(1)
        return total / (case_counts * has_seed).sum(1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust the p-values of several tests (Holm 1979), so that one level holds for all of them.

    >>> holm([0.01, 0.04])
    [0.02, 0.04]
    """
    order = np.argsort(p_values, kind="stable")
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def judge_difference(difference: Difference, adjusted_p: float) -> str:
    """Return "higher" or "lower" if interval and corrected test agree, else that it is open."""
    if find_doubts(difference, adjusted_p):
        return "no evidence of a difference"
    return "higher" if difference.mean > 0 else "lower"


def find_doubts(difference: Difference, adjusted_p: float) -> list[str]:
    """Return the reasons why there is no evidence of a difference; [] if there is evidence."""
    reasons = []
    if not (difference.low > 0 or difference.high < 0):
        reasons.append("the interval contains 0")
    if not adjusted_p < LEVEL:
        reasons.append(f"p is not below {LEVEL}")
    return reasons
