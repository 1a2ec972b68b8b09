"""What an ``auto`` says: how it divides its hours, and in the end how it came to its model."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from semi_nnunet.automatic.cases import LEAST_PATIENTS, Cases
from semi_nnunet.automatic.proof import Proof
from semi_nnunet.automatic.schedule import FULL, Round, Setting, time_of
from semi_nnunet.automatic.state import State
from semi_nnunet.report.choice import Choice
from semi_nnunet.util.progress import readable_time


def schedule_table(rounds: Sequence[Round], setting: Setting, before: Collection[str] = ()) -> str:
    """The rounds to come as a table for a screen: steps, folds, estimated time and trainers.

    Args:
        rounds: to come.
        setting: of the schedule.
        before: names of the rounds that are over.
    """
    rows = [("round", "steps", "folds", "about", "trainers")]
    for one, seconds in zip(rounds, time_of(setting, rounds), strict=True):
        folds, trainers = " ".join(one.folds), ", ".join(map(short, one.trainers))
        rows.append((one.name, str(one.steps), folds, readable_time(seconds), trainers))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        "  ".join(
            [*(cell.ljust(width) for cell, width in zip(row[:4], widths, strict=True)), row[4]]
        )
        for row in rows
    ]
    later = " In later rounds, other methods may be left." if len(rounds) > 1 else ""
    said = proving_words(setting.cases, {*before, *(one.name for one in rounds)})
    return "\n".join(["", *lines, f"{said}{later}", ""])


def short(trainer: str) -> str:
    """A trainer's name without what all have in common."""
    return trainer.removeprefix("Semi").removesuffix("Trainer")


def proving_words(cases: Cases, rounds: Collection[str]) -> str:
    """Which cases choose, and which prove.

    Args:
        cases: of the data set.
        rounds: names of all of them.
    """
    chosen = f"Folds {' '.join(cases.choosing)} choose the method"
    if not {*rounds} - {FULL}:
        chosen = "The first candidate is taken without a choice, for which there is too little time"
    if not cases.choosing:
        chosen = "The first candidate is taken, as too few labelled cases are there to choose by"
    if not (cases.has_test_labels or cases.proving):
        return f"{chosen}; nothing can prove it."
    proof = f"folds {' '.join(cases.proving)} prove it on other cases."
    if cases.has_test_labels:
        proof = "the labelled test cases prove it."
    if cases.proving_patients < LEAST_PATIENTS:
        what = "no gain is beyond chance, and the baseline ships"
        proof += f" With fewer than {LEAST_PATIENTS} of them {what}: put test cases into labelsTs."
    return f"{chosen}; {proof}"


def choice_of(trainer: str, state: State, cases: Cases, proof: Proof, hours: float) -> Choice:
    """How ``trainer`` was chosen, in rounds, and what ships."""
    rows = [
        (
            name, str(one.steps), " ".join(one.folds), ", ".join(map(short, one.trainers)),
            ", ".join(map(short, state.ranked.get(name, ()))),
        )
        for name, one in state.rounds.items()
    ]  # fmt: skip
    ships = (
        f"The model that ships was trained on all labelled cases (fold all, {FULL} round): "
        f"{short(proof.ships)}. {readable_time(state.seconds)} of {hours:g} h were spent."
    )
    return Choice(trainer, (proving_words(cases, state.rounds),), tuple(rows), (ships,))


def story(dataset: str, proof: Proof, choice: Choice, other: str | None) -> str:
    """A page of Markdown: the answer first, then how the model was chosen.

    Args:
        dataset: its name.
        proof: the answer.
        choice: how the model was chosen.
        other: the command that exports the method's model, where the baseline's ships.
    """
    lines = [f"# {dataset}", "", proof.said, ""]
    lines += ["* `exported/`: the model; stock nnU-Net installs the zip and predicts with it."]
    lines += ["* `predictions/`: its segmentations of imagesTs, if there are any."]
    lines += ["* `report.html`: the last round in full, to be opened in a browser."]
    if other:
        lines += [f"* The model of {choice.trainer} is kept, too; this exports it: `{other}`."]
    lines += [""]
    lines += ["## How it was chosen", "", *choice.markdown()]
    return "\n".join(lines)
