"""The texts of an ``auto``: its schedule, and how it chose its model."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from semi_nnunet.automatic.cases import LEAST_PATIENTS, CaseCounts
from semi_nnunet.automatic.checked_choice import METRIC, CheckedChoice
from semi_nnunet.automatic.schedule import (
    FULL,
    ScheduleInputs,
    TrainingRound,
    estimate_round_seconds,
)
from semi_nnunet.automatic.state import AutoState
from semi_nnunet.evaluation.points import format_mean
from semi_nnunet.reporting.choice import COLUMNS as CHOICE_COLUMNS
from semi_nnunet.reporting.choice import MethodChoice
from semi_nnunet.util.markdown import plain, table
from semi_nnunet.util.method_names import name_method
from semi_nnunet.util.progress import readable_time

SHORTER = 0.9  # a round with less than this share of its expected steps is explained
PAYS_FROM = 2000  # supervised steps; measured at 1,100 and from 3,300 on (results/equal_time.md)


def format_schedule(
    rounds: Sequence[TrainingRound], inputs: ScheduleInputs, finished: Collection[str] = ()
) -> str:
    """Return the remaining rounds as a table: steps, folds, estimated time and trainers.

    Args:
        rounds: to come.
        inputs: of the schedule.
        finished: names of the rounds that are over.
    """
    rows = [("round", "steps", "folds", "about", "methods")]
    for current, seconds in zip(rounds, estimate_round_seconds(inputs, rounds), strict=True):
        folds, trainers = " ".join(current.folds), ", ".join(map(name_method, current.trainers))
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
    if not (cases.has_test_labels or cases.checking_folds):
        return f"{choice}; no cases are left to check it."
    check = f"folds {' '.join(cases.checking_folds)} check it on other cases."
    if cases.has_test_labels:
        check = "the labelled test cases check it."
    if cases.checking_patients < LEAST_PATIENTS:
        check += (
            f" With fewer than {LEAST_PATIENTS} of them no gain can be proven: put test images "
            f"into imagesTs and their labels into labelsTs."
        )
    return f"{choice}; {check}"


def explain_changes(state: AutoState, remaining: Sequence[TrainingRound]) -> list[str]:
    """Return a sentence for every round that got shorter or was dropped since the last schedule.

    Args:
        state: with the last forecast, and the seconds of the rounds that are over.
        remaining: rounds of the new schedule.
    """
    reason = explain_delay(state)
    steps = {current.name: current.steps for current in remaining}
    sentences = []
    for name, forecast in state.forecast.items():
        if name in state.rounds:
            continue
        if name not in steps:
            sentences.append(f"The {name} round is dropped: {reason}.")
        elif steps[name] < SHORTER * forecast.steps:
            sentences.append(
                f"The {name} round has {steps[name]} steps instead of {forecast.steps}: {reason}."
            )
    return sentences


def warn_of_short_training(remaining: Sequence[TrainingRound]) -> list[str]:
    """Return a sentence if the last round is too short for unlabelled images to pay.

    Args:
        remaining: rounds of a schedule.
    """
    last = remaining[-1]
    steps = last.steps_of(last.trainers[0])
    if last.name != FULL or steps >= PAYS_FROM:
        return []
    return [
        f"The hours allow only {steps} supervised steps. In the time of about 1,100, unlabelled "
        f"images made models 0.4 to 0.8 points worse where it was measured; in that of 3,300, "
        f"gains ranged from -1.3 to +5.5 points. More hours may change the answer."
    ]


def explain_delay(state: AutoState) -> str:
    """Explain why less time is left than the last schedule expected."""
    last = next(reversed(state.begun), None)
    if last is not None and last in state.forecast:
        took, expected = state.seconds - state.begun[last], state.forecast[last].seconds
        if SHORTER * took > expected:
            return (
                f"the {last} round took {readable_time(took)} instead of "
                f"{readable_time(expected)}, as it does on a busy machine"
            )
    return "its trainings take longer than those that the last schedule assumed"


def list_choice_rows(state: AutoState) -> tuple[tuple[str, str, str, str, str], ...]:
    """Return the rounds that were begun, with the Dice of the methods that they ranked."""
    return tuple(
        (
            name, current.describe_steps(), " ".join(current.folds),
            ", ".join(map(name_method, current.trainers)),
            format_ranking(state.ranked.get(name, ()), state.dice.get(name, {})),
        )
        for name, current in state.rounds.items()
    )  # fmt: skip


def format_ranking(ranked: Sequence[str], dice: Mapping[str, float]) -> str:
    """Return the methods with their mean Dice in points, as far as it is recorded.

    >>> format_ranking(["SemiUnifiedTrainer", "SemiBaselineTrainer"], {"SemiUnifiedTrainer": 0.812})
    'Unified 81.20, Baseline'
    """
    names = [
        f"{name_method(name)} {format_mean(dice[name], METRIC)}"
        if name in dice
        else name_method(name)
        for name in ranked
    ]
    return ", ".join(names)


def build_choice(
    trainer: str, state: AutoState, cases: CaseCounts, checked: CheckedChoice, hours: float
) -> MethodChoice:
    """Describe the rounds in which ``trainer`` was chosen, and the exported model."""
    exported = (
        f"The exported model was trained on all labelled cases (fold all, {FULL} round): "
        f"{name_method(checked.exported)}. {readable_time(state.seconds)} of {hours:g} h were used."
    )
    before = (describe_case_roles(cases, state.rounds), *state.notes)
    return MethodChoice(trainer, before, list_choice_rows(state), (exported,))


def format_progress_page(dataset: str, state: AutoState, cases: CaseCounts, hours: float) -> str:
    """Return the page of a choice that is not finished: the running round and the ranking so far.

    Args:
        dataset: its name.
        state: of the choice.
        cases: of the data set.
        hours: to spend.
    """
    running = next(reversed(state.rounds))
    phase = "is over, the next one follows" if running in state.ranked else "is running"
    status = (
        f"Not finished: the {running} round {phase}. {readable_time(state.seconds)} of {hours:g} h "
        "have been used. "
        "This page will begin with the answer when the run is finished."
    )
    rows = table([CHOICE_COLUMNS, *list_choice_rows(state)]).splitlines()
    notes = [line for note in state.notes for line in (note, "")]
    roles = describe_case_roles(cases, {*state.rounds, *state.forecast})
    lines = [f"# {dataset}", "", status, "", "## Rounds", "", roles, "", *notes, *rows, ""]
    return "\n".join(lines)


def format_answer_page(
    dataset: str,
    checked: CheckedChoice,
    choice: MethodChoice,
    export: str | None,
    following: Sequence[str],
    advice: Sequence[str] = (),
) -> str:
    """Return a page of Markdown: the answer, how the model was chosen, and what to annotate next.

    Args:
        dataset: its name.
        checked: the answer.
        choice: how the model was chosen.
        export: the command that exports the method's model, if the baseline's is exported.
        following: lines of the last part, see :func:`describe_next_cases`; none omits the part.
        advice: sentences about the predictions.
    """
    lines = [f"# {dataset}", "", checked.answer, ""]
    lines += [line for sentence in advice for line in (sentence, "")]
    lines += ["* `exported/`: the model; stock nnU-Net installs the zip and predicts with it."]
    lines += ["* `predictions/`: its segmentations of imagesTs, if there are any."]
    lines += ["* `report.html`: the last round in full, to be opened in a browser."]
    if export:
        lines += [f"* The model of {choice.trainer} is kept, too; this exports it: `{export}`."]
    lines += ["", "## How it was chosen", "", *choice.markdown()]
    if following:
        lines += ["", "## Annotate these cases next", "", *following, ""]
    return "\n".join(lines)


def describe_next_cases(cases: Sequence[tuple[str, str]], page: str, proposals: str) -> list[str]:
    """Return lines of Markdown: unlabelled cases to annotate next, and how to go on.

    Args:
        cases: names and reasons.
        page: with a picture of each case.
        proposals: the command with which the model writes labels to correct.
    """
    return [
        f"Typical images that differ from the labelled ones; `{page}` shows them. They were chosen "
        "without a network.",
        "",
        *table([("case", "reason"), *(tuple(map(plain, row)) for row in cases)]).splitlines(),
        "",
        "With this command, the exported model writes labels of these cases, to correct:",
        "",
        "```bash",
        proposals,
        "```",
        "",
        "`semi_nnunet accept` then turns the cases into labelled ones (docs/annotation.md).",
    ]
