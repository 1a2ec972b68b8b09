"""Which method is best on the cases that choose, and whether other cases confirm it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from semi_nnunet.discovery.names import BASELINE
from semi_nnunet.evaluation import comparison
from semi_nnunet.evaluation.statistics import doubts
from semi_nnunet.evaluation.values import Value, crediting_absence, read_values
from semi_nnunet.runs.folders import patients_of
from semi_nnunet.runs.job import Job
from semi_nnunet.runs.trainings import tables_of
from semi_nnunet.util.errors import UserError

METRIC = "dice"


@dataclass(frozen=True)
class Proof:
    """Whether a method is better than the baseline, on cases that did not choose it.

    Args:
        ships: the trainer whose model ships: the method's if it is better beyond chance.
        answer: as a sentence.
    """

    ships: str
    answer: str


def rank_trainers(jobs: Sequence[Job]) -> list[str]:
    """Return the trainers by their mean Dice on the validation cases, the best first."""
    ranking = comparison.ranking(read_dice_values(jobs, "validation"), METRIC)
    return [model.trainer for model, _ in ranking]


def prove(jobs: Sequence[Job], trainer: str) -> Proof:
    """Compare a method with the baseline, on test cases if they are labelled.

    Args:
        jobs: of the last round.
        trainer: of the method.
    """
    subset = "test" if jobs[0].folders.test_labels else "validation"
    values = read_dice_values([job for job in jobs if job.trainer in (BASELINE, trainer)], subset)
    try:
        (compared,) = comparison.compare(values, BASELINE, METRIC)
    except UserError:
        reason = f"{trainer} could not be compared with the baseline: no labelled case was left."
        return Proof(BASELINE, f"{reason} The baseline ships.")
    gain = compared.overall
    unit = "patient" if comparison.patients_note(values) else "case"
    numbers = (
        f"Dice {compared.mean:.4f}, the baseline {compared.baseline_mean:.4f}: "
        f"{100 * gain.mean:+.2f} points ({100 * gain.low:+.2f} to {100 * gain.high:+.2f}), "
        f"on {gain.cases} {subset} {unit}{'s' * (gain.cases != 1)} that did not choose it"
    )
    verdict = compared.verdict(METRIC)
    if verdict == "better":
        return Proof(trainer, f"Unlabelled images help: {trainer} has {numbers}.")
    answer = "Unlabelled images harm here"
    if verdict != "WORSE":
        reasons = " and ".join(doubts(gain, compared.p_holm))
        answer = f"No gain beyond chance was seen ({reasons})"
    return Proof(BASELINE, f"{answer}, so that the baseline ships: {trainer} has {numbers}.")


def read_dice_values(jobs: Sequence[Job], subset: str) -> list[Value]:
    """Return the Dice of every case and class."""
    values, _ = read_values(tables_of(jobs, subset), METRIC, patients_of(jobs[0].folders))
    return crediting_absence(values, METRIC)
