"""Is a method better than the baseline? Paired differences of cases, and how sure one can be.

Where several cases are of one patient, what is called a case here is the mean of theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import bootstrap, wilcoxon

RESAMPLES = 10_000
SEED = 20_221


@dataclass(frozen=True)
class Difference:
    """Method - baseline over the same cases.

    Args:
        mean: of the cases' differences.
        low: lower end of the 95 % interval of the mean, over cases and, where there are several,
            seeds; NaN for fewer than two cases.
        high: upper end.
        p: of Wilcoxon's signed-rank test, two-sided; 1 where no case differs.
        cases: how many were compared.
        better: in how many of them the method is better.
    """

    mean: float
    low: float
    high: float
    p: float
    cases: int
    better: int


def paired_difference(differences: ArrayLike, higher_is_better: bool = True) -> Difference:
    """Mean, interval and test of the differences of the cases.

    Args:
        differences: (cases,) or (cases, seeds); NaN where there is none.
        higher_is_better: whether a positive difference is an improvement.

    Raises:
        ValueError: no difference is a number.
    """
    values = np.asarray(differences, dtype=float)
    values = values.reshape(len(values), -1)
    values = values[~np.isnan(values).all(1)]
    if len(values) == 0:
        raise ValueError("paired_difference needs a case, got none")
    of_cases = np.nanmean(values, 1)
    p = float(wilcoxon(of_cases, zero_method="zsplit").pvalue) if of_cases.any() else 1.0
    better = np.count_nonzero((1 if higher_is_better else -1) * of_cases > 0)
    return Difference(
        float(of_cases.mean()), *interval_of_mean(values), p, len(values), int(better)
    )


def interval_of_mean(values: np.ndarray) -> tuple[float, float]:
    """The 95 % bootstrap interval of the mean of the cases' means; NaNs for fewer than two cases.

    Of one seed it is the bias-corrected and accelerated bootstrap over cases (Efron 1987), the
    percentile one where all but one differences are the same and there is no acceleration. Of
    several, cases and seeds are drawn independently (crossed percentile bootstrap, Owen 2007):
    two trainings that differ by chance alone may differ by more than the cases tell. It is too
    narrow rather than too wide for few seeds; with three, one of them against a gain stands
    against it.

    Args:
        values: (cases, seeds), NaN where a seed lacks a case; each case has a seed.
    """
    cases, seeds = values.shape
    if cases < 2:
        return float("nan"), float("nan")
    if np.nanmin(values) == np.nanmax(values):
        return float(values[0, 0]), float(values[0, 0])
    rng = np.random.default_rng(SEED)
    if seeds > 1:
        means = np.concatenate([resampled_means(values, 500, rng) for _ in range(RESAMPLES // 500)])
        low, high = np.quantile(means[~np.isnan(means)], (0.025, 0.975))
        return float(low), float(high)
    for method in ("BCa", "percentile"):
        interval = bootstrap(
            (values[:, 0],), np.mean, n_resamples=RESAMPLES, method=method, rng=rng
        ).confidence_interval
        if not np.isnan(interval.low):
            break
    return float(interval.low), float(interval.high)


def resampled_means(values: np.ndarray, times: int, rng: np.random.Generator) -> np.ndarray:
    """(times,) means over cases of means over seeds, both drawn with replacement; NaN if empty.

    Args:
        values: (cases, seeds), NaN where a seed lacks a case.
        times: how many draws.
        rng: draws them.
    """
    cases, seeds = values.shape
    there = ~np.isnan(values)
    cases_drawn = rng.multinomial(cases, np.full(cases, 1 / cases), times)  # how often each
    seeds_drawn = rng.multinomial(seeds, np.full(seeds, 1 / seeds), times)
    with np.errstate(invalid="ignore"):
        of_cases = (seeds_drawn @ np.nan_to_num(values).T) / (seeds_drawn @ there.T)
        has_one = ~np.isnan(of_cases)
        total = (cases_drawn * np.nan_to_num(of_cases)).sum(1)
        return total / (cases_drawn * has_one).sum(1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values of several tests (Holm 1979): below .05 after it, .05 holds for all."""
    order = np.argsort(p_values, kind="stable")
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


LEVEL = 0.05  # of the corrected test


def verdict(difference: Difference, adjusted_p: float) -> str:
    """In words: the interval and the corrected test must agree for evidence."""
    if doubts(difference, adjusted_p):
        return "no evidence of a difference"
    return "higher" if difference.mean > 0 else "lower"


def doubts(difference: Difference, adjusted_p: float) -> list[str]:
    """Why there is no evidence of a difference; [] where there is."""
    found = []
    if not (difference.low > 0 or difference.high < 0):
        found.append("the interval contains 0")
    if not adjusted_p < LEVEL:
        found.append(f"p is not below {LEVEL}")
    return found
