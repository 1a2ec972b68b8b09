"""Is a method better than the baseline? Paired differences of cases, and how sure one can be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import bootstrap, wilcoxon

RESAMPLES = 10_000
SEED = 20_221


@dataclass(frozen=True)
class Difference:
    """Method - baseline over the same cases.

    Args:
        mean: of the cases' differences.
        low: lower end of the 95 % interval of the mean; NaN for fewer than two cases.
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


def paired_difference(differences: Sequence[float], higher_is_better: bool = True) -> Difference:
    """Mean, interval and test of the differences of the cases, NaNs left out.

    The interval is the bias-corrected and accelerated bootstrap over cases (Efron 1987), the
    percentile one where all but one differences are the same and there is no acceleration.

    Raises:
        ValueError: no difference is a number.
    """
    values = np.array([value for value in differences if not np.isnan(value)], dtype=float)
    if len(values) == 0:
        raise ValueError("paired_difference needs a case, got none")
    sign = 1 if higher_is_better else -1
    low, high = interval_of_mean(values)
    p = 1.0
    if values.any():
        p = float(wilcoxon(values, zero_method="zsplit").pvalue)
    return Difference(
        float(values.mean()), low, high, p, len(values), int(np.count_nonzero(sign * values > 0))
    )


def interval_of_mean(values: np.ndarray) -> tuple[float, float]:
    """The 95 % bootstrap interval of the mean of (N,) values; NaNs for fewer than two."""
    if len(values) < 2:
        return float("nan"), float("nan")
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    for method in ("BCa", "percentile"):
        interval = bootstrap(
            (values,), np.mean, n_resamples=RESAMPLES, method=method,
            rng=np.random.default_rng(SEED),
        ).confidence_interval  # fmt: skip
        if not np.isnan(interval.low):
            break
    return float(interval.low), float(interval.high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values of several tests (Holm 1979): below .05 after it, .05 holds for all."""
    order = np.argsort(p_values, kind="stable")
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def verdict(difference: Difference, adjusted_p: float, level: float = 0.05) -> str:
    """In words: the interval and the corrected test must agree for evidence."""
    beyond_chance = adjusted_p < level and (difference.low > 0 or difference.high < 0)
    if not beyond_chance:
        return "no evidence of a difference"
    return "higher" if difference.mean > 0 else "lower"
