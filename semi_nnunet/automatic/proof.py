"""Which method is best on the cases that choose, and what other cases say about it.

What ships is the model with the higher expected Dice (:mod:`semi_nnunet.automatic.expected_gain`).
What is claimed needs evidence beyond chance (:mod:`semi_nnunet.evaluation.statistics`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from semi_nnunet.automatic.expected_gain import HARM, ExpectedGain, GainPrior
from semi_nnunet.discovery.names import BASELINE
from semi_nnunet.evaluation import comparison
from semi_nnunet.evaluation.points import format_difference, format_interval, format_mean
from semi_nnunet.evaluation.statistics import find_doubts
from semi_nnunet.evaluation.values import Model, Value, credit_absence, read_values
from semi_nnunet.runs.folders import load_patient_finder
from semi_nnunet.runs.job import Job
from semi_nnunet.runs.trainings import list_metric_tables
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.method_names import name_method
from semi_nnunet.util.names import format_count

METRIC = "dice"

# Gains of the default over a baseline of equal training time, on six data sets that count the same
# (docs/results/index.md, "Which model auto exports"; scripts/simulate_shipping.py computes them)
PRIOR = GainPrior(mean=0.012, spread=0.014)
BETTER, LIKELY_FROM = "better", 0.8  # a verdict; a probability
PROVEN = "Unlabelled images help: proven"
LIKELY = "Unlabelled images help: likely, not proven"
NO_DIFFERENCE = "No difference was shown"
WORSE = "Unlabelled images make it worse here"


@dataclass(frozen=True)
class Proof:
    """The comparison of a method with the baseline, on cases that did not choose it.

    Args:
        ships: the trainer whose model ships.
        answer: as a sentence.
    """

    ships: str
    answer: str


def rank_trainers(jobs: Sequence[Job]) -> dict[str, float]:
    """Return trainer -> mean Dice on the validation cases that all predicted, the best first."""
    ranking = comparison.rank_models(read_dice_values(jobs, "validation"), METRIC)
    return {model.trainer: mean for model, mean in ranking}


def prove(jobs: Sequence[Job], trainer: str) -> Proof:
    """Compare a method with the baseline, on test cases if they are labelled.

    Args:
        jobs: of the last round.
        trainer: of the method.
    """
    subset = "test" if jobs[0].folders.test_labels else "validation"
    values = read_dice_values([job for job in jobs if job.trainer in (BASELINE, trainer)], subset)
    try:
        (compared,) = comparison.compare_with_baseline(values, BASELINE, METRIC)
    except UserError:
        reason = f"{trainer} could not be compared with the baseline: no labelled case was left."
        return Proof(BASELINE, f"{reason} The baseline ships.")
    gain = compared.overall
    unit = "patient" if comparison.describe_patients(values) else "case"
    numbers = (
        f"{name_method(trainer)} has Dice {format_mean(compared.mean, METRIC)}, the baseline "
        f"{format_mean(compared.baseline_mean, METRIC)}: {format_difference(gain.mean, METRIC)} "
        f"points ({format_interval(gain, METRIC)}), on "
        f"{format_count(gain.cases, f'{subset} {unit}')} that did not choose it"
    )
    expected = ExpectedGain.after(list_patient_gains(values, trainer), PRIOR)
    ships, is_better = expected.is_worth_shipping(), 1 - expected.probability_below(0.0)
    bet = (
        f"Expected gain: {format_difference(expected.mean, METRIC)} points. The method is better "
        f"with a probability of {is_better:.0%}, and loses more than "
        f"{100 * HARM:.0f} point with {expected.probability_below(-HARM):.0%}."
    )
    outcome = f"{name_method(trainer if ships else BASELINE)} ships."
    claim = describe_claim(compared.verdict(METRIC), is_better)
    doubts = find_doubts(gain, compared.p_holm) if claim not in (PROVEN, WORSE) else []
    reason = f" ({' and '.join(doubts)})" if doubts else ""
    return Proof(trainer if ships else BASELINE, f"{claim}{reason}: {numbers}. {bet} {outcome}")


def describe_claim(verdict: str, is_better: float) -> str:
    """Return what may be claimed of the unlabelled images.

    >>> describe_claim("no evidence of a gain", is_better=0.9)
    'Unlabelled images help: likely, not proven'

    Args:
        verdict: of the comparison, see :meth:`MethodComparison.verdict`.
        is_better: probability that the method is better.
    """
    if verdict in (BETTER, "WORSE"):
        return PROVEN if verdict == BETTER else WORSE
    return LIKELY if is_better >= LIKELY_FROM else NO_DIFFERENCE


def list_patient_gains(values: Sequence[Value], trainer: str) -> list[float]:
    """Return method - baseline of each patient, the mean over classes, folds and seeds.

    Args:
        values: of the method and the baseline.
        trainer: of the method.
    """
    tables = comparison.group_by_model(values)
    (model,) = (model for model in tables if model.trainer == trainer)
    base = tables[Model(BASELINE, model.configuration)]
    shared = (
        (value, (value.value, base[key].value))
        for key, value in tables[model].items()
        if key in base
    )
    pairs = comparison.average_cases_of_patients(shared)
    gains = np.nanmean(comparison.tabulate_differences(pairs), axis=1)
    return [float(gain) for gain in gains if not math.isnan(gain)]


def read_dice_values(jobs: Sequence[Job], subset: str) -> list[Value]:
    """Return the Dice of every case and class."""
    patient_of = load_patient_finder(jobs[0].folders)
    values, _ = read_values(list_metric_tables(jobs, subset), METRIC, patient_of)
    return credit_absence(values, METRIC)
