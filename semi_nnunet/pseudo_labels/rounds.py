"""Rounds of distillation: models label the pool, a target is trained and labels the pool again.

Iterative pseudo labelling, as the winner of FLARE22 did (Huang et al. 2022). Every round begins
with the labelled cases and the whole pool of the first data set, so that no pseudo label becomes an
annotation. A round consists of commands that a user could type; each skips finished work.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from nnunetv2.paths import nnUNet_preprocessed, nnUNet_results

from semi_nnunet.deploy.trained import find_model
from semi_nnunet.discovery.listing import our_trainers, unknown_trainers
from semi_nnunet.discovery.settings import settings_classes
from semi_nnunet.evaluation.tables import METRICS_JSON
from semi_nnunet.pseudo_labels.choice import COMPARISON_SCORES, SelectionRule
from semi_nnunet.pseudo_labels.distilled_dataset import find_missing_plans
from semi_nnunet.pseudo_labels.label_folders import locate_pool_labels
from semi_nnunet.raw.layout import (
    DISTILLED_FILE,
    SPLITS_FILE,
    get_preprocessed_dataset,
    name_new_dataset,
    read_dataset_number,
    was_dataset_made,
)
from semi_nnunet.runs.folders import ALL, TEST_FOLDER, Folders
from semi_nnunet.runs.folds import count_dataset_folds, find_fold_problems
from semi_nnunet.runs.seeds import name_seed_plans
from semi_nnunet.settings.common import SemiSettings
from semi_nnunet.settings.overrides import collect_given_settings
from semi_nnunet.training.filtering import count_kept
from semi_nnunet.util.command import Command
from semi_nnunet.util.errors import Problem
from semi_nnunet.util.files import read_json
from semi_nnunet.util.verb_commands import build_command


@dataclass(frozen=True)
class Target:
    """The training on the pseudo labels.

    >>> Target("SemiBaselineTrainer", "nnUNetPlans", ("2d",), ("0",)).models("Dataset077_X")
    ('Dataset077_X/SemiBaselineTrainer__nnUNetPlans__2d',)

    Args:
        trainer: class name.
        plans: their name.
        configurations: for example ("2d",), or the stages of a cascade; the last one labels.
        folds: numbers, or "all".
        seeds: number of seeds of each fold.
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
        """Return the models on a data set as -m takes them, one for each seed."""
        plans = [name_seed_plans(self.plans, seed) for seed in range(self.seeds)]
        return tuple(f"{dataset}/{self.trainer}__{name}__{self.configuration}" for name in plans)


@dataclass(frozen=True)
class LabellingRound:
    """One labelling of the pool and the training that follows.

    Args:
        raw: folder of the data set that it writes.
        base: models that label.
        choice: selects the cases.
        takes_all: whether every image of the pool is selected.
    """

    raw: Path
    base: tuple[str, ...]
    choice: SelectionRule
    takes_all: bool

    @property
    def name(self) -> str:
        """Name of the round's data set, without the number."""
        return self.raw.name.split("_", 1)[1]


def plan_rounds(
    raws: Sequence[Path],
    base: Sequence[str],
    target: Target,
    keep: Sequence[float],
    choice: SelectionRule,
    pool_size: int,
) -> list[LabellingRound]:
    """Return the rounds, each labelled by the target of the previous one, the first by ``base``.

    Args:
        raws: the data set of each round.
        base: models.
        target: the training.
        keep: a value for each round, or one for all.
        choice: of every round, apart from ``keep``. A score that compares with earlier rounds gets
            them from the second one on; a first round without earlier labels selects all.
        pool_size: number of unlabelled images.
    """
    labelled_by = [tuple(base), *(target.models(raw.name) for raw in raws[:-1])]
    shares = keep if len(keep) > 1 else list(keep) * len(raws)
    rounds, earlier = list[LabellingRound](), list(choice.before)
    for raw, models, share in zip(raws, labelled_by, shares, strict=True):
        of_round = replace(choice, keep=share)
        if choice.score in COMPARISON_SCORES:
            of_round = replace(of_round, before=tuple(earlier)) if earlier else SelectionRule()
            earlier.append(str(locate_pool_labels(raw)))
        takes_all = of_round.most is None and count_kept(pool_size, of_round.keep) >= pool_size
        rounds.append(LabellingRound(raw, models, of_round, takes_all))
    return rounds


def list_round_commands(
    labelling: LabellingRound,
    target: Target,
    source: str,
    labelling_options: Mapping[str, Any],
    resources: Mapping[str, Any],
    processes: int,
) -> Iterator[tuple[str, Command]]:
    """Yield the stages of a round with their commands.

    Args:
        labelling: the round.
        target: the training that follows.
        source: the data set with the labelled cases and the pool.
        labelling_options: arguments of ``pseudo-dataset`` that all rounds share.
        resources: the device and the jobs of the commands that compute.
        processes: number of processes that read and write files.
    """
    number, choice = str(read_dataset_number(labelling.raw)), labelling.choice
    yield "label", build_command(
        "pseudo-dataset", dataset=source, new_id=number, new_name=labelling.name,
        models=labelling.base,
        keep=[choice.keep], max_uncertainty=choice.most, score=choice.score, before=choice.before,
        **labelling_options, target_plans=target.plans,
        target_configuration=target.configuration, **resources, processes=processes,
    )  # fmt: skip
    yield (
        "preprocess",
        build_preprocess_command(number, target.plans, target.configurations, processes),
    )
    yield "train", build_command(
        "crossval", dataset=number, plans=target.plans, configurations=target.configurations,
        trainers=[target.trainer], folds=target.folds, seeds=target.seeds, **resources,
    )  # fmt: skip


def build_preprocess_command(
    number: str, plans: str | None, configurations: Sequence[str], processes: int | None = None
) -> Command:
    """Return the command that preprocesses a data set, with its plans if it was given any.

    The pool was checked before: now --skip-bad skips images equal to pseudo-labelled ones.
    """
    return build_command(
        "preprocess", dataset=number, plans=plans, configurations=plans and configurations,
        skip_bad=True, processes=processes,
    )  # fmt: skip


def average_test_dice(models: Sequence[str]) -> float | None:
    """Return the mean Dice of imagesTs over models and folds, or None if some was not measured."""
    folders = [
        model.folder / f"fold_{fold}" / TEST_FOLDER
        for model in map(find_model, models)
        for fold in model.folds
    ]
    if not all((folder / METRICS_JSON).is_file() for folder in folders):
        return None
    values = [read_json(folder / METRICS_JSON)["foreground_mean"]["dice"] for folder in folders]
    return None if None in values else fmean(values)  # null: no case shows any foreground


# ---- checks before the first round ----


def find_split_folders(source: Path) -> Folders:
    """Return the folders with the folds for new data sets; the source may not be preprocessed."""
    preprocessed = get_preprocessed_dataset(source.name)
    has_folds = (preprocessed / SPLITS_FILE).is_file()
    return Folders(source, preprocessed if has_folds else source, source)


def find_target_problems(
    target: Target, plans: Mapping[str, dict[str, Any]], split: Folders
) -> Iterator[Problem]:
    """Yield a problem for an unknown trainer, plans, configuration or fold, or a broken cascade."""
    yield from unknown_trainers([target.trainer])
    yield from find_missing_plans(target.plans, target.configuration, plans)
    yield from find_fold_problems(split, target.folds)
    ours = our_trainers().get(target.trainer)
    if ours is not None and ours.taught_by and not names_teachers(target, plans.get(target.plans)):
        message = f"is taught by {ours.taught_by} of the same data set, which has none"
        yield Problem(
            target.trainer, message, "give its setting 'models', or train it on -d instead"
        )
    if len(target.configurations) == 1 or set(target.folds) == {ALL}:
        return
    if ours is None:
        message = "as a first stage predicts only validation cases, not pseudo-labelled ones"
        yield Problem(
            target.trainer, message, "--target SemiBaselineTrainer, or --target-folds all"
        )
    if set(target.folds) != {str(fold) for fold in range(count_dataset_folds(split))}:
        message = f"{target.configuration} needs the predictions of every fold, asked for are"
        yield Problem(
            "--target-folds",
            f"{message} {' '.join(target.folds)}",
            "leave it out, or --target-folds all",
        )


def names_teachers(target: Target, plans: Mapping[str, Any] | None) -> bool:
    """Return whether the plans name the models that teach a target."""
    if plans is None or target.configuration not in plans["configurations"]:
        return True  # reported elsewhere
    classes = settings_classes()
    settings = collect_given_settings(
        plans.get("semi", {}), SemiSettings, classes[target.trainer],
        target.trainer, target.configuration, list(plans["configurations"]), classes,
    )  # fmt: skip
    return bool(settings.get("models", ((), ""))[0])


def find_pool_problems(target: Target, rounds: Sequence[LabellingRound]) -> Iterator[Problem]:
    """Yield rounds that pseudo-label every image, for a trainer that needs unlabelled ones."""
    trainer = our_trainers().get(target.trainer)
    if trainer is None or not trainer.uses_unlabelled:
        return
    for labelling in rounds:
        if labelling.takes_all:
            option, fix = f"--keep {labelling.choice.keep:g}", "keep fewer"
            if rounds[-1].choice.score in COMPARISON_SCORES and not labelling.choice.before:
                option = f"--score {rounds[-1].choice.score}, whose first round takes all"
                fix = "give it something to compare with by --before"
            message = f"leaves no unlabelled image, which {target.trainer} needs"
            yield Problem(option, message, f"{fix}, or --target SemiBaselineTrainer")


def find_free_raw_folders(raw: Path, number: int, name: str, rounds: int) -> list[Path]:
    """Return the raw folder that each round writes.

    Args:
        raw: nnUNet_raw.
        number, name: of the first data set.
        rounds: number of rounds.

    Raises:
        UserError: a number or a folder is taken.
    """
    roots = [Path(root.require()) for root in (nnUNet_preprocessed, nnUNet_results) if root.get()]
    folders = []
    for index in range(rounds):
        round_name = f"{name}Round{index + 1}" if index else name
        folder = name_new_dataset(raw, number + index, round_name)
        for root in roots:  # nnU-Net finds a data set by its number in any of them
            name_new_dataset(root, number + index, round_name)
        if not (folder / DISTILLED_FILE).is_file():
            was_dataset_made(folder, DISTILLED_FILE, None)  # raises if another command made it
        folders.append(folder)
    return folders
