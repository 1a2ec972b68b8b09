"""Rounds of distillation: models label the pool, a target is trained, it labels the pool anew.

Iterative pseudo labelling, as the winner of FLARE22 did (Huang et al. 2022). Every round begins
with the labelled cases and the whole pool of the first data set, so that no pseudo label becomes a
label. What a round does are commands that a user could type; each skips what is done.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from nnunetv2.paths import nnUNet_preprocessed, nnUNet_results

from semi_nnunet.data.layout import (
    DISTILLED_FILE,
    new_raw_dataset,
    preprocessed_dataset,
    was_made,
)
from semi_nnunet.deploy.trained import find_model
from semi_nnunet.discovery.listing import our_trainers, unknown_trainers
from semi_nnunet.discovery.settings import settings_classes
from semi_nnunet.evaluation.tables import JSON
from semi_nnunet.pseudo_labels.choice import OF_SEVERAL, Choice
from semi_nnunet.pseudo_labels.distilled_dataset import plans_problems
from semi_nnunet.pseudo_labels.places import labelled_pool
from semi_nnunet.runs.folders import ALL, TEST_FOLDER, Folders
from semi_nnunet.runs.folds import fold_problems, number_of_folds
from semi_nnunet.runs.seeds import seed_name
from semi_nnunet.settings.common import SemiSettings
from semi_nnunet.settings.overrides import given_settings
from semi_nnunet.util.command import Command
from semi_nnunet.util.errors import Problem
from semi_nnunet.util.files import read_json


@dataclass(frozen=True)
class Target:
    """The training on the pseudo labels.

    Args:
        trainer: class name.
        plans: their name.
        configurations: for example ("2d",), or the stages of a cascade; the last one labels.
        folds: numbers, or "all".
        seeds: how many of each fold.
    """

    trainer: str
    plans: str
    configurations: tuple[str, ...]
    folds: tuple[str, ...]
    seeds: int = 1

    @property
    def configuration(self) -> str:
        """The configuration that labels."""
        return self.configurations[-1]

    def models(self, dataset: str) -> tuple[str, ...]:
        """The models on a data set, one for each seed with all its folds, as --base takes them."""
        plans = [seed_name(self.plans, seed) for seed in range(self.seeds)]
        return tuple(f"{dataset}/{self.trainer}__{one}__{self.configuration}" for one in plans)


@dataclass(frozen=True)
class Round:
    """One labelling of the pool, and the training that follows.

    Args:
        raw: folder of the data set that it writes.
        base: models that label.
        choice: of the cases that are taken.
        takes_all: whether that is every image of the pool.
    """

    raw: Path
    base: tuple[str, ...]
    choice: Choice
    takes_all: bool

    @property
    def name(self) -> str:
        """The name of the round's data set, without the number."""
        return self.raw.name.split("_", 1)[1]


@dataclass(frozen=True)
class Options:
    """The options that all rounds share.

    Args:
        source: the data set with the labelled cases and the pool.
        labelling: options of ``distil``.
        device: options of all that computes.
        processes: that read and write files.
    """

    source: str
    labelling: tuple[str, ...]
    device: tuple[str, ...]
    processes: int


def plan_rounds(
    raws: Sequence[Path],
    base: Sequence[str],
    target: Target,
    keep: Sequence[float],
    asked: Choice,
    pool: int,
) -> list[Round]:
    """The rounds, each labelled by the target of the one before, the first by ``base``.

    Args:
        raws: the data set that each writes.
        base: models.
        target: what is trained.
        keep: a value for each round, or one for all.
        asked: of every round, whatever it keeps; a score that compares with earlier rounds has them
            from the second one on, and a first one without any takes all.
        pool: number of unlabelled images.
    """
    labelled_by = [tuple(base), *(target.models(raw.name) for raw in raws[:-1])]
    shares = keep if len(keep) > 1 else list(keep) * len(raws)
    rounds, earlier = list[Round](), list(asked.before)
    for raw, models, share in zip(raws, labelled_by, shares, strict=True):
        choice = replace(asked, keep=share)
        if asked.score in OF_SEVERAL:
            choice = replace(choice, before=tuple(earlier)) if earlier else Choice()
            earlier.append(str(labelled_pool(raw)))
        takes_all = choice.most is None and (choice.keep == 1 or choice.keep >= pool)
        rounds.append(Round(raw, models, choice, takes_all))
    return rounds


def commands(one: Round, target: Target, options: Options) -> Iterator[tuple[str, Command]]:
    """The commands of a round, each looked at when the one before has ended."""
    number = number_of(one.raw)
    choice, new = one.choice, ("-o", number, "--name", one.name)
    chosen = ["--keep", str(choice.keep)]
    chosen += ["--most", str(choice.most)] if choice.most is not None else []
    chosen += ["--score", choice.score] if choice.score != "entropy" else []
    chosen += ["--before", *choice.before] if choice.before else []
    processes = ("-np", str(options.processes))
    taken_over = ("--target-plans", target.plans, "--target-configuration", target.configuration)
    label = ("-d", options.source, *new, "--base", *one.base, *chosen, *options.labelling)
    yield "label", ("semi_nnunet", "distil", *label, *taken_over, *options.device, *processes)
    yield "preprocess", (*preprocess(number, target.plans, target.configurations), *processes)
    what = ("-d", number, "-p", target.plans, "-c", *target.configurations, "-tr", target.trainer)
    repeated = ("-f", *target.folds, "--seeds", str(target.seeds))
    yield "train", ("semi_nnunet", "crossval", *what, *repeated, *options.device)


def number_of(raw: Path) -> str:
    """The number of a data set, as it is typed."""
    return str(int(raw.name[7:10]))


def preprocess(number: str, plans: str | None, configurations: Sequence[str]) -> Command:
    """The command that preprocesses a data set, with the plans that it was given, if any.

    The pool was checked before: what --skip-bad sets aside now are images equal to one that was
    pseudo-labelled.
    """
    which = ("-p", plans, "-c", *configurations) if plans else ()
    return ("semi_nnunet", "preprocess", "-d", number, *which, "--skip-bad")


def dice_of_test_cases(models: Sequence[str]) -> float | None:
    """The mean Dice of imagesTs over models and their folds, where all were measured."""
    folders = [
        model.folder / f"fold_{fold}" / TEST_FOLDER
        for model in map(find_model, models)
        for fold in model.folds
    ]
    if not all((folder / JSON).is_file() for folder in folders):
        return None
    return fmean(read_json(folder / JSON)["foreground_mean"]["dice"] for folder in folders)


# ---- what would keep the target from being trained ----


def split_of(source: Path) -> Folders:
    """Find the folds for the new data sets; the source may not be preprocessed here."""
    preprocessed = preprocessed_dataset(source.name)
    has_folds = (preprocessed / "splits_final.json").is_file()
    return Folders(source, preprocessed if has_folds else source, source)


def target_problems(
    target: Target, plans: Mapping[str, dict[str, Any]], split: Folders
) -> Iterator[Problem]:
    """A trainer, plans, a configuration or folds that do not exist, or make no cascade."""
    yield from unknown_trainers([target.trainer])
    yield from plans_problems(target.plans, target.configuration, plans)
    yield from fold_problems(split, target.folds)
    ours = our_trainers().get(target.trainer)
    if ours is not None and ours.taught_by and not has_teachers(target, plans.get(target.plans)):
        what = f"is taught by {ours.taught_by} of the same data set, which has none"
        yield Problem(target.trainer, what, "give its setting 'models', or train it on -d instead")
    if len(target.configurations) == 1 or set(target.folds) == {ALL}:
        return
    if ours is None:
        what = "as a first stage predicts the validation cases alone, not pseudo-labelled ones"
        yield Problem(target.trainer, what, "--target SemiBaselineTrainer, or -f all")
    if set(target.folds) != {str(fold) for fold in range(number_of_folds(split))}:
        what = f"{target.configuration} needs the predictions of every fold, asked for are"
        yield Problem("-f", f"{what} {' '.join(target.folds)}", "leave -f out, or -f all")


def has_teachers(target: Target, plans: Mapping[str, Any] | None) -> bool:
    """Whether the plans name the models that teach a target."""
    if plans is None or target.configuration not in plans["configurations"]:
        return True  # which is refused anyway
    known = settings_classes()
    given = given_settings(
        plans.get("semi", {}), SemiSettings, known[target.trainer],
        target.trainer, target.configuration, list(plans["configurations"]), known,
    )  # fmt: skip
    return bool(given.get("models", ((), ""))[0])


def pool_problems(target: Target, rounds: Sequence[Round]) -> Iterator[Problem]:
    """Rounds that pseudo-label every image, for a trainer that needs unlabelled ones."""
    kind = our_trainers().get(target.trainer)
    if kind is not None and kind.uses_unlabelled:
        for one in rounds:
            if one.takes_all:
                where, fix = f"--keep {one.choice.keep:g}", "keep fewer"
                if rounds[-1].choice.score in OF_SEVERAL and not one.choice.before:
                    where = f"--score {rounds[-1].choice.score}, whose first round takes all"
                    fix = "give it something to compare with by --before"
                what = f"leaves no unlabelled image, which {target.trainer} needs"
                yield Problem(where, what, f"{fix}, or --target SemiBaselineTrainer")


def new_data_sets(raw: Path, number: int, name: str, rounds: int) -> list[Path]:
    """The raw folder that each round writes.

    Args:
        raw: nnUNet_raw.
        number, name: of the first.
        rounds: how many there are.

    Raises:
        UserError: a number or a folder is taken.
    """
    others = [Path(root.require()) for root in (nnUNet_preprocessed, nnUNet_results) if root.get()]
    found = []
    for index in range(rounds):
        of_round = f"{name}Round{index + 1}" if index else name
        folder = new_raw_dataset(raw, number + index, of_round)
        for other in others:  # nnU-Net finds a data set by its number in any of them
            new_raw_dataset(other, number + index, of_round)
        if not (folder / DISTILLED_FILE).is_file():
            was_made(folder, DISTILLED_FILE, None)  # raises where it is something else
        found.append(folder)
    return found
