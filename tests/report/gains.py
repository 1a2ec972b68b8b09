"""Values of methods with a given gain over the baseline."""

from __future__ import annotations

from functools import cache

import numpy as np

from semi_nnunet.evaluation.comparison import compare_with_baseline
from semi_nnunet.evaluation.values import Model, Value
from semi_nnunet.reporting.measured import SubsetResults, build_metric_table
from tests.report.results_tree import BASE


def values(trainer: str, gain: float, cases: int = 12, noise: float = 0.004) -> list[Value]:
    rng = np.random.default_rng(len(trainer))
    return [
        Value(Model(trainer, "2d"), "0", seed, f"c{case}", name, 0.7 + gain + noise * rng.normal())
        for seed in (0, 1)
        for case in range(cases)
        for name in ("liver", "tumour")
    ]


@cache  # the intervals are of 10,000 samples each
def measured(subset: str, metric: str = "dice", **gains: float) -> SubsetResults:
    rows = [v for trainer, gain in gains.items() for v in values(trainer, gain)]
    compared = compare_with_baseline(rows, BASE, metric) if BASE in gains and len(gains) > 1 else []
    return SubsetResults(
        subset,
        metric,
        tuple(rows),
        tuple(compared),
        (build_metric_table(rows, compared, BASE, metric),),
    )
