"""Follow a recipe, from the files of a published benchmark to the report.

Each stage is a command that a user could type, and skips finished work.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from semi_nnunet.raw.layout import find_number_problems
from semi_nnunet.runs.commands import run_stages
from semi_nnunet.runs.job import STEPS
from semi_nnunet.settings.assignments import format_assignment
from semi_nnunet.util.command import Command
from semi_nnunet.util.errors import Problem, UserError, raise_if_any
from semi_nnunet.util.names import below_one
from semi_nnunet.util.verb_commands import build_command
from semi_nnunet.workflows.recipe import Recipe, load_recipe
from semi_nnunet.workflows.recipe_files import STAGES, find_recipe

logger = logging.getLogger(__name__)
# of recipes: --budget, --patch, auto, distil and --seeds give such names to plans
TAKEN_NAMES = re.compile(r"^(cpu|auto|slim|\d+(p\d+)?|\d+(x\d+)+)$|_seed\d+$")


@dataclass(frozen=True, kw_only=True)
class FollowOptions:
    """The stages of a recipe to follow, with their data sets and devices.

    >>> FollowOptions(converted=501, first="compare").selected_stages
    ('compare', 'report', 'pseudo-dataset', 'distil')

    Args:
        source: folder of the downloaded files; None if nothing is converted.
        converted: number of the data set with all labels.
        split: number of the data set with hidden labels; None if the recipe hides none.
        distilled: number of the first data set of pseudo-labels; None if the recipe has none.
        only: the only stage of :data:`~.recipe_files.STAGES` to do; None: all.
        first: the stage to begin with; None: the first.
        dry_run: print the commands and run none.
        device: "cpu", "cuda" or "mps"; None: cuda if there is one.
        jobs: trainings at a time; None: one for each GPU, one on the CPU.
        processes: to convert and preprocess with.
        report: the HTML file; None: the recipe's name, .html, in the working folder.
    """

    source: Path | None = None
    converted: int
    split: int | None = None
    distilled: int | None = None
    only: str | None = None
    first: str | None = None
    dry_run: bool = False
    device: str | None = None
    jobs: int | None = None
    processes: int = 2
    report: Path | None = None

    @property
    def selected_stages(self) -> tuple[str, ...]:
        """The names of the requested stages."""
        return (self.only,) if self.only else STAGES[STAGES.index(self.first or STAGES[0]) :]

    @property
    def used(self) -> str:
        """The number of the data set to train on."""
        return str(self.split or self.converted)


def follow_recipe(name: str | Path, how: FollowOptions) -> Recipe:
    """Follow a recipe; every stage is a command that is printed, and skips finished work.

    Args:
        name: of a recipe that comes with the package, such as "la_4", or the path of a JSON file.

    Returns:
        The recipe, with the published numbers to compare with.

    Raises:
        UserError: the recipe is wrong, a folder or number is missing, or a stage failed.
    """
    path = find_recipe(name)
    recipe = load_recipe(path)
    options = check_follow_options(path, recipe, how)
    stages = build_stage_commands(recipe, options, name_recipe_plans(path))
    selected = {stage: stages[stage] for stage in stages if stage in how.selected_stages}
    commands = [
        (stage, words)
        for stage, stage_commands in merge_crossval_steps(selected).items()
        for words in stage_commands
    ]
    if not commands:
        raise UserError(f"{path} has no stage {how.only}", fix=f"choose from {[*stages]}")
    logger.info(f"# {recipe.title}")
    numbered = [
        (f"{number} of {len(commands)}: {stage}", words)
        for number, (stage, words) in enumerate(commands, start=1)
    ]
    run_stages(numbered, how.dry_run)
    return recipe


def check_follow_options(path: Path, recipe: Recipe, options: FollowOptions) -> FollowOptions:
    """Check the options, and return them with the path of the report and only a used source.

    Raises:
        UserError: a folder or number is missing, superfluous or out of range.
    """
    problems = [*find_number_problems("--converted", options.converted)]
    if options.split is not None:
        problems += find_number_problems("--split", options.split)
    problems += below_one({"--jobs": options.jobs, "-np": options.processes})
    report = (options.report or Path(path.stem + ".html")).absolute()
    if report.is_dir() or not report.parent.is_dir():
        message = f"must be a file in an existing folder, got {report}"
        problems.append(Problem("-o", message, "create the folder, or correct it"))
    if recipe.labelled and options.split is None:
        message = "the recipe hides labels in a new data set, which needs a number of its own"
        problems.append(Problem("--split", message, "add --split NEW_ID"))
    elif recipe.labelled and options.split == options.converted:
        message = (
            f"the new data set needs a number of its own, got that of --converted: {options.split}"
        )
        problems.append(Problem("--split", message, "choose another number"))
    if recipe.labelled is None and options.split is not None:
        problems.append(Problem("--split", "the recipe hides no labels", "leave it out"))
    problems += find_distilled_problems(recipe, options)
    converts = STAGES[0] in options.selected_stages
    if converts and options.source is None:
        fix = (
            f"add the folder of the files that semi_nnunet convert {recipe.converter} --help lists"
        )
        problems.append(Problem("SRC", "is missing", f"{fix}, or --from split"))
    raise_if_any("The recipe cannot be followed:", problems)
    return replace(options, source=options.source if converts else None, report=report)


def find_distilled_problems(recipe: Recipe, options: FollowOptions) -> Iterator[Problem]:
    """Yield a missing, used or superfluous number of the data sets of pseudo-labels."""
    location, first = "--pseudo-labelled", options.distilled
    if recipe.pseudo_labels is None:
        if first is not None:
            yield Problem(location, "the recipe has no pseudo labels", "leave it out")
        return
    if first is None:
        message = "the recipe makes a data set of pseudo labels, which needs a number of its own"
        yield Problem(location, message, f"add {location} NEW_ID")
        return
    numbers = range(first, first + recipe.pseudo_labels.rounds)
    used = {options.converted, options.split}
    if used & {*numbers} or numbers[0] < 1 or numbers[-1] > 999:
        message = f"its data sets, {numbers[0]} to {numbers[-1]}, must be new ones from 1 to 999"
        yield Problem(location, message, "choose another number")


def name_recipe_plans(path: Path) -> str:
    """Return the identifier of a recipe's plans, made of the name of its file.

    Two recipes may use the same data set, and must not share settings or trainings.

    >>> name_recipe_plans(Path("plans/la_4.json"))
    'nnUNetPlans_la_4'

    Raises:
        UserError: the name is not valid for plans, or could be that of other plans.
    """
    stem = path.stem
    if not re.fullmatch("[A-Za-z0-9-]+(_[A-Za-z0-9-]+)*", stem) or TAKEN_NAMES.search(stem):
        raise UserError(
            f"a recipe's file name must consist of letters, digits and -, joined by single _, and "
            f"not be cpu, auto, slim, 0p5, 80x112x112 or the like, or end in _seed1: its plans "
            f"are named after it, and other commands use these names; got {path.name!r}",
            fix="rename the file",
        )
    return f"nnUNetPlans_{stem}"


def build_stage_commands(
    recipe: Recipe, options: FollowOptions, plans: str
) -> dict[str, list[Command]]:
    """Return the commands of every stage that the recipe has, in order."""
    used, processes = options.used, options.processes
    stages: dict[str, list[Command]] = {}
    if options.source is not None:
        convert = build_command(
            "convert", recipe.converter, options.source,
            new_id=options.converted, processes=processes, **recipe.options,
        )  # fmt: skip
        stages["convert"] = [convert]
    if (labelled := recipe.labelled) is not None:
        split = build_command(
            "split", dataset=str(options.converted), new_id=used, labelled=labelled.number,
            published=labelled.published, seed=labelled.seed,
            held_out=None if labelled.held_out is None else str(labelled.held_out),
        )  # fmt: skip
        stages["split"] = [split]
    preprocess = build_command(
        "preprocess", dataset=used, configurations=recipe.configurations, processes=processes
    )
    stages["preprocess"] = [preprocess]
    settings = [format_assignment(key, value) for key, value in recipe.settings.items()]
    plan = build_command(  # without settings that were given earlier
        "plan", dataset=used, new_plans=plans, reset=True, budget=recipe.budget, patch=recipe.patch,
        settings=settings,
    )  # fmt: skip
    stages["plan"] = [plan]
    if recipe.budget:  # its spacing may differ
        stages["plan"].append((*preprocess, "-p", plans))
    for step in STEPS:
        crossval = build_command(
            "crossval", dataset=used, plans=plans, configurations=recipe.configurations,
            trainers=recipe.trainers, folds=recipe.folds, seeds=recipe.seeds,
            device=options.device, jobs=options.jobs, stages=[step],
        )  # fmt: skip
        stages[step] = [crossval]
    if len(recipe.trainers) > 1:
        stages["compare"] = [build_command("compare", dataset=used, plans=plans)]
    stages["report"] = [build_command("report", dataset=used, plans=plans, out=options.report)]
    return stages | build_later_commands(recipe, options, plans)


def build_later_commands(
    recipe: Recipe, options: FollowOptions, plans: str
) -> dict[str, list[Command]]:
    """Return the stages after the report: rounds of pseudo-labels, and a small network."""
    stages: dict[str, list[Command]] = {}
    rounds, configuration = recipe.pseudo_labels, recipe.configurations[-1]
    shared = {"device": options.device, "jobs": options.jobs}
    source, teacher = options.used, None if recipe.distil is None else recipe.distil.trainer
    if rounds is not None and options.distilled is not None:
        labelling = build_command(
            "pseudo-dataset", dataset=options.used, new_id=options.distilled,
            models=[f"{source}/{rounds.trainer}__{plans}__{configuration}"], keep=rounds.keep,
            score=rounds.score, complete=rounds.complete, target=rounds.target,
            target_plans=plans, target_configuration=configuration, rounds=rounds.rounds,
            target_folds=recipe.folds, processes=options.processes, **shared,
        )  # fmt: skip
        stages["pseudo-dataset"] = [labelling]
        source, teacher = str(options.distilled + rounds.rounds - 1), rounds.target
    if recipe.distil is not None and teacher is not None:
        model = f"{source}/{teacher}__{plans}__{configuration}"
        distil = build_command(
            "distil", dataset=options.used, model=model, share=recipe.distil.share,
            folds=recipe.folds, **shared,
        )  # fmt: skip
        stages["distil"] = [distil]
    return stages


def merge_crossval_steps(stages: Mapping[str, list[Command]]) -> dict[str, list[Command]]:
    """Merge the steps of a crossval into one stage, where a failed training stops no other."""
    steps = [step for step in STEPS if step in stages]
    if len(steps) < 2:
        return dict(stages)
    (first,) = stages[steps[0]]
    merged: dict[str, list[Command]] = {}
    for stage, commands in stages.items():
        if stage not in steps:
            merged[stage] = commands
        elif stage == steps[0]:
            merged[", ".join(steps)] = [(*first[:-1], *steps)]
    return merged
