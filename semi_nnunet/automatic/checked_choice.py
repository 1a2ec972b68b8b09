"""Which method is best on the cases that choose, and what other cases say about it.

The model with the higher expected Dice is exported (:mod:`semi_nnunet.automatic.expected_gain`).
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
from semi_nnunet.workflows.compare import count_steps

METRIC = "dice"

# Gains of variant=whole_batch, the default of batches of 2 or 3 patches, over a baseline of equal
# training time, on six data sets that count the same (docs/results/equal_time.md, "Which model auto
# exports"; scripts/simulate_export.py computes them)
PRIOR = GainPrior(mean=0.012, spread=0.014)
LIKELY_FROM = 0.8  # probability that the method is better
PROVEN = "Unlabelled images help: proven"
LIKELY = "Unlabelled images help: likely, not proven"
NO_DIFFERENCE = "No difference was shown"
WORSE = "Unlabelled images make it worse here"
TOO_SHORT = f"Fewer than {comparison.FEW_STEPS} steps show nothing"


@dataclass(frozen=True)
class CheckedChoice:
    """The comparison of a method with the baseline, on cases that did not choose it.

    Args:
        exported: the trainer whose model is exported.
        answer: whether unlabelled images helped, as a sentence.
    """

    exported: str
    answer: str


def rank_trainers(jobs: Sequence[Job]) -> dict[str, float]:
    """Return trainer -> mean Dice on the validation cases that all predicted, the best first."""
    ranking = comparison.rank_models(read_dice_values(jobs, "validation"), METRIC)
    return {model.trainer: mean for model, mean in ranking}


def check_choice(jobs: Sequence[Job], trainer: str) -> CheckedChoice:
    """Compare the chosen method with the baseline, on test cases if they are labelled.

    Args:
        jobs: of the last round.
        trainer: of the method.
    """
    subset = "test" if jobs[0].folders.test_labels else "validation"
    values = read_dice_values([job for job in jobs if job.trainer in (BASELINE, trainer)], subset)
    try:
        (compared,) = comparison.compare_with_baseline(values, BASELINE, METRIC, count_steps(jobs))
    except UserError as error:
        reason = f"{name_method(trainer)} could not be compared with the baseline: {error.what}"
        return CheckedChoice(BASELINE, f"{reason}. The baseline is exported.")
    gain = compared.overall
    unit = "patient" if comparison.describe_patients(values) else "case"
    numbers = (
        f"{name_method(trainer)} has Dice {format_mean(compared.mean, METRIC)}, the baseline "
        f"{format_mean(compared.baseline_mean, METRIC)}: {format_difference(gain.mean, METRIC)} "
        f"points ({format_interval(gain, METRIC)}), on "
        f"{format_count(gain.cases, f'{subset} {unit}')} that did not choose it"
    )
    expected = ExpectedGain.after(list_patient_gains(values, trainer), PRIOR)
    exported = trainer if expected.is_worth_exporting() else BASELINE
    is_better = 1 - expected.probability_below(0.0)
    bet = (
        f"Expected gain: {format_difference(expected.mean, METRIC)} points. Probability that the "
        f"method is better: {is_better:.0%}; that it loses more than {100 * HARM:.0f} point: "
        f"{expected.probability_below(-HARM):.0%}."
    )
    claim = describe_claim(compared.verdict(METRIC), is_better)
    doubts = find_doubts(gain, compared.p_holm) if claim in (LIKELY, NO_DIFFERENCE) else []
    reason = f" ({' and '.join(doubts)})" if doubts else ""
    outcome = f"The model of {name_method(exported)} is exported."
    return CheckedChoice(exported, f"{claim}{reason}: {numbers}. {bet} {outcome}")


def describe_claim(verdict: str, is_better: float) -> str:
    """Return what may be claimed of the unlabelled images.

    >>> describe_claim("no evidence of a gain", is_better=0.9)
    'Unlabelled images help: likely, not proven'

    Args:
        verdict: of the comparison, see :meth:`ModelComparison.verdict`.
        is_better: probability that the method is better.
    """
    decided = {"better": PROVEN, "WORSE": WORSE, comparison.NOT_JUDGED: TOO_SHORT}
    if verdict in decided:
        return decided[verdict]
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
