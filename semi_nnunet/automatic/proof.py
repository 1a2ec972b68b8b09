"""Which method is best on the cases that choose, and whether other cases prove it."""

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
        said: the answer, in a sentence.
    """

    ships: str
    said: str


def ranked(jobs: Sequence[Job]) -> list[str]:
    """The trainers by their mean Dice on the validation cases, the best first."""
    found = comparison.ranking(values_of(jobs, "validation"), METRIC)
    return [model.trainer for model, _ in found]


def prove(jobs: Sequence[Job], trainer: str) -> Proof:
    """Compare a method with the baseline, on test cases where they are labelled.

    Args:
        jobs: of the last round.
        trainer: of the method.
    """
    subset = "test" if jobs[0].folders.test_labels else "validation"
    both = [job for job in jobs if job.trainer in (BASELINE, trainer)]
    values = values_of(both, subset)
    try:
        (found,) = comparison.compare(values, BASELINE, METRIC)
    except UserError:
        said = f"{trainer} could not be compared with the baseline: no labelled case was left over."
        return Proof(BASELINE, f"{said} The baseline ships.")
    low, high = 100 * found.overall.low, 100 * found.overall.high
    unit = "patient" if comparison.patients_note(values) else "case"
    count = found.overall.cases
    numbers = (
        f"Dice {found.mean:.4f}, the baseline {found.baseline_mean:.4f}: "
        f"{100 * found.overall.mean:+.2f} points ({low:+.2f} to {high:+.2f}), "
        f"on {count} {subset} {unit}{'s' * (count != 1)} that did not choose it"
    )
    verdict = found.verdict(METRIC)
    if verdict == "better":
        return Proof(trainer, f"Unlabelled images help: {trainer} has {numbers}.")
    what, why = "Unlabelled images harm here", ""
    if verdict != "WORSE":
        what = "No gain beyond chance was seen"
        why = f" ({' and '.join(doubts(found.overall, found.p_holm))})"
    return Proof(BASELINE, f"{what}{why}, so that the baseline ships: {trainer} has {numbers}.")


def values_of(jobs: Sequence[Job], subset: str) -> list[Value]:
    """The Dice of every case and class."""
    values, _ = read_values(tables_of(jobs, subset), METRIC, patients_of(jobs[0].folders))
    return crediting_absence(values, METRIC)
