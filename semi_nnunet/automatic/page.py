"""The texts of an ``auto``: its schedule, and how it chose its model."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from semi_nnunet.automatic.cases import LEAST_PATIENTS, CaseCounts
from semi_nnunet.automatic.proof import Proof
from semi_nnunet.automatic.schedule import (
    FULL,
    ScheduleInputs,
    TrainingRound,
    estimate_round_seconds,
)
from semi_nnunet.automatic.state import AutoState
from semi_nnunet.reporting.choice import MethodChoice
from semi_nnunet.util.progress import readable_time


def format_schedule(
    rounds: Sequence[TrainingRound], inputs: ScheduleInputs, finished: Collection[str] = ()
) -> str:
    """Return the remaining rounds as a table: steps, folds, estimated time and trainers.

    Args:
        rounds: to come.
        inputs: of the schedule.
        finished: names of the rounds that are over.
    """
    rows = [("round", "steps", "folds", "about", "trainers")]
    for current, seconds in zip(rounds, estimate_round_seconds(inputs, rounds), strict=True):
        folds, trainers = " ".join(current.folds), ", ".join(map(shorten_trainer, current.trainers))
        about = readable_time(seconds)
        rows.append((current.name, current.describe_steps(), folds, about, trainers))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        "  ".join(
            [*(cell.ljust(width) for cell, width in zip(row[:4], widths, strict=True)), row[4]]
        )
        for row in rows
    ]
    note = " Later rounds may train other methods." if len(rounds) > 1 else ""
    names = {*finished, *(current.name for current in rounds)}
    return "\n".join(["", *lines, f"{describe_case_roles(inputs.cases, names)}{note}", ""])


def shorten_trainer(trainer: str) -> str:
    """Return a trainer's name without the common prefix and suffix.

    >>> shorten_trainer("SemiMeanTeacherTrainer")
    'MeanTeacher'
    """
    return trainer.removeprefix("Semi").removesuffix("Trainer")


def describe_case_roles(cases: CaseCounts, rounds: Collection[str]) -> str:
    """Return which cases choose the method, and which test the choice.

    Args:
        cases: of the data set.
        rounds: names of all of them.
    """
    choice = f"Folds {' '.join(cases.choosing_folds)} choose the method"
    if not {*rounds} - {FULL}:
        choice = "The first candidate is trained without a comparison, for lack of time"
    if not cases.choosing_folds:
        choice = "The first candidate is trained, as there are too few labelled cases to compare"
    if not (cases.has_test_labels or cases.proving_folds):
        return f"{choice}; no cases are left to check it."
    check = f"folds {' '.join(cases.proving_folds)} check it on other cases."
    if cases.has_test_labels:
        check = "the labelled test cases check it."
    if cases.proving_patients < LEAST_PATIENTS:
        check += (
            f" With fewer than {LEAST_PATIENTS} of them no gain can be proven: put test cases into "
            f"labelsTs."
        )
    return f"{choice}; {check}"


def build_choice(
    trainer: str, state: AutoState, cases: CaseCounts, proof: Proof, hours: float
) -> MethodChoice:
    """Describe the rounds in which ``trainer`` was chosen, and the model that ships."""
    rows = [
        (
            name, current.describe_steps(), " ".join(current.folds),
            ", ".join(map(shorten_trainer, current.trainers)),
            ", ".join(map(shorten_trainer, state.ranked.get(name, ()))),
        )
        for name, current in state.rounds.items()
    ]  # fmt: skip
    shipped = (
        f"The model that ships was trained on all labelled cases (fold all, {FULL} round): "
        f"{shorten_trainer(proof.ships)}. {readable_time(state.seconds)} of {hours:g} h were spent."
    )
    return MethodChoice(
        trainer, (describe_case_roles(cases, state.rounds),), tuple(rows), (shipped,)
    )


def format_answer_page(dataset: str, proof: Proof, choice: MethodChoice, export: str | None) -> str:
    """Return a page of Markdown: the answer first, then how the model was chosen.

    Args:
        dataset: its name.
        proof: the answer.
        choice: how the model was chosen.
        export: the command that exports the method's model, if the baseline's ships.
    """
    lines = [f"# {dataset}", "", proof.answer, ""]
    lines += ["* `exported/`: the model; stock nnU-Net installs the zip and predicts with it."]
    lines += ["* `predictions/`: its segmentations of imagesTs, if there are any."]
    lines += ["* `report.html`: the last round in full, to be opened in a browser."]
    if export:
        lines += [f"* The model of {choice.trainer} is kept, too; this exports it: `{export}`."]
    lines += ["", "## How it was chosen", "", *choice.markdown()]
    return "\n".join(lines)
