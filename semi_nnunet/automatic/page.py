"""What an ``auto`` says: how it divides its hours, and in the end how it came to its model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from semi_nnunet.automatic.proof import Proof
from semi_nnunet.automatic.schedule import FULL, Round, Setting, time_of
from semi_nnunet.automatic.state import State
from semi_nnunet.report.choice import Choice
from semi_nnunet.util.progress import readable_time


def schedule_table(rounds: Sequence[Round], setting: Setting) -> str:
    """The rounds as a table for a screen: steps, folds, estimated time and trainers."""
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
    return "\n".join(["", *lines, f"{proving_words(setting, rounds)}{later}", ""])


def short(trainer: str) -> str:
    """A trainer's name without what all have in common."""
    return trainer.removeprefix("Semi").removesuffix("Trainer")


def proving_words(setting: Setting, rounds: Iterable[Round]) -> str:
    """Which cases choose, and which prove."""
    names = {one.name for one in rounds}
    chosen = f"Folds {' '.join(setting.choosing)} choose the method"
    if not names - {FULL}:
        chosen = "The first candidate is taken without a choice, for which there is too little time"
    if not setting.choosing:
        chosen = "The first candidate is taken, as too few labelled cases are there to choose by"
    if setting.has_test_labels:
        return f"{chosen}; the labelled test cases prove it."
    if setting.proving:
        return f"{chosen}; folds {' '.join(setting.proving)} prove it on other cases."
    return f"{chosen}; nothing can prove it."


def choice_of(state: State, setting: Setting, proof: Proof, hours: float) -> Choice:
    """How the model was chosen, in rounds."""
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
    return Choice((proving_words(setting, state.rounds.values()),), tuple(rows), (ships,))


def story(dataset: str, proof: Proof, choice: Choice) -> str:
    """A page of Markdown: the answer first, then how the model was chosen."""
    lines = [f"# {dataset}", "", proof.said, ""]
    lines += ["* `exported/`: the model; stock nnU-Net installs the zip and predicts with it."]
    lines += ["* `predictions/`: its segmentations of imagesTs, if there are any."]
    lines += ["* `report.html`: the last round in full, to be opened in a browser.", ""]
    lines += ["## How it was chosen", "", *choice.markdown()]
    return "\n".join(lines)
