"""The stages of a recipe: each is a command that a user could type, and skips what is done."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from semi_nnunet.runs.job import STEPS
from semi_nnunet.runs.recipe import Recipe, option_words
from semi_nnunet.settings.assignments import assignment_of
from semi_nnunet.util.command import Command
from semi_nnunet.util.errors import UserError


@dataclass(frozen=True)
class Place:
    """The data set and folders in which a recipe is followed.

    Args:
        source: folder of the downloaded files; None where nothing is converted.
        converted: number or name of the data set with all labels.
        used: of the one that is trained on; the same where the recipe hides no labels.
        distilled: number of the first data set of pseudo labels; None where the recipe has none.
        plans: identifier of those of the recipe alone, see :func:`plans_of_recipe`.
        report: the HTML file.
        processes: for converting and preprocessing.
        device, jobs: as ``crossval``; None leaves the choice to it.
    """

    source: Path | None
    converted: str
    used: str
    plans: str
    report: Path
    processes: int
    device: str | None = None
    jobs: int | None = None
    distilled: int | None = None

    def model(self, dataset: int | str, trainer: str, recipe: Recipe) -> str:
        """A trained model of the recipe's last configuration, as -m takes it."""
        return f"{dataset}/{trainer}__{self.plans}__{recipe.configurations[-1]}"


def plans_of_recipe(path: Path) -> str:
    """The identifier of a recipe's plans, from its file's name.

    Two recipes may use the same data set: what one gave or trained is not the other's.

    Raises:
        UserError: the name cannot be that of plans, or would be that of another recipe's seed.
    """
    stem = path.stem
    if not re.fullmatch("[A-Za-z0-9-]+(_[A-Za-z0-9-]+)*", stem) or re.search(r"_seed\d+$", stem):
        raise UserError(
            f"a recipe's file name must consist of letters, digits and -, joined by single _, and "
            f"not end in _seed1 or the like, as its plans are named after it; got {path.name!r}. "
            f"",
            fix="rename the file",
        )
    return f"nnUNetPlans_{stem}"


def commands(recipe: Recipe, place: Place) -> dict[str, list[Command]]:
    """The commands of every stage that the recipe has, in order."""
    plans, processes = ("-p", place.plans), ("-np", str(place.processes))
    used, configurations = ("-d", place.used), ("-c", *recipe.configurations)
    settings = [assignment_of(key, value) for key, value in recipe.settings.items()]
    found: dict[str, list[tuple[str | Path, ...]]] = {}
    if place.source is not None:
        target = (place.source, "-d", place.converted, *processes)
        found["convert"] = [("convert", recipe.converter, *target, *option_words(recipe.options))]
    if recipe.labelled is not None:
        labelled = recipe.labelled
        choice = ("--published",) if labelled.published else ("--seed", str(labelled.seed))
        where = ("-d", place.converted, "-o", place.used)
        found["split"] = [("split", *where, "--labelled", str(labelled.number), *choice)]
    preprocess = ("preprocess", *used, *configurations, *processes)
    found["preprocess"] = [preprocess]
    budget = ("--budget", recipe.budget) if recipe.budget else ()
    patch = ("--patch", *map(str, recipe.patch)) if recipe.patch else ()
    given = ("--set", *settings) if settings else ()
    named = ("--name", place.plans, "--reset")  # nothing that somebody gave before
    found["plan"] = [("plan", *used, *named, *budget, *patch, *given)]
    if recipe.budget:  # its spacing may be another
        found["plan"].append((*preprocess, *plans))
    crossval = ("crossval", *used, *plans, *configurations, "-tr", *recipe.trainers)
    device = ("--device", place.device) if place.device else ()
    jobs = ("--jobs", str(place.jobs)) if place.jobs else ()
    repeated = ("-f", *recipe.folds, "--seeds", str(recipe.seeds))
    for step in STEPS:
        found[step] = [(*crossval, *repeated, *device, *jobs, "--steps", step)]
    if len(recipe.trainers) > 1:
        found["compare"] = [("compare", *used, *plans)]
    found["report"] = [("report", *used, *plans, "-o", place.report)]
    found |= later_commands(recipe, place, (*device, *jobs))
    return {
        stage: [("semi_nnunet", *words) for words in several] for stage, several in found.items()
    }


def later_commands(
    recipe: Recipe, place: Place, where: Sequence[str]
) -> dict[str, list[tuple[str | Path, ...]]]:
    """The stages after the report: rounds of pseudo labels, and a small network."""
    found: dict[str, list[tuple[str | Path, ...]]] = {}
    used, folds, again = ("-d", place.used), ("-f", *recipe.folds), recipe.pseudo_labels
    source, teacher = place.used, None if recipe.slim is None else recipe.slim.trainer
    if again is not None and place.distilled is not None:
        new = ("-o", str(place.distilled), "-m", place.model(place.used, again.trainer, recipe))
        chosen = ["--keep", *map(str, again.keep), "--score", again.score]
        chosen += ["--complete"] if again.complete else []
        target = ["--target", again.target, "--target-plans", place.plans]
        target += ["--target-configuration", recipe.configurations[-1]]
        rounds = (*folds, "--rounds", str(again.rounds), "-np", str(place.processes))
        found["distil"] = [("distil", *used, *new, *chosen, *target, *rounds, *where)]
        source, teacher = str(place.distilled + again.rounds - 1), again.target
    if recipe.slim is not None and teacher is not None:
        model = ("-m", place.model(source, teacher, recipe))
        share = ("--share", str(recipe.slim.share))
        found["slim"] = [("slim", *used, *model, *folds, *share, *where)]
    return found


def steps_as_one(stages: Mapping[str, list[Command]]) -> dict[str, list[Command]]:
    """The stages with those of a crossval as one, in which a failed training stops no other."""
    steps = [step for step in STEPS if step in stages]
    if len(steps) < 2:
        return dict(stages)
    (first,) = stages[steps[0]]
    found: dict[str, list[Command]] = {}
    for stage, several in stages.items():
        if stage not in steps:
            found[stage] = several
        elif stage == steps[0]:
            found[", ".join(steps)] = [(*first[:-1], *steps)]
    return found
