"""Follow a recipe: from the files of a published benchmark to the report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from semi_nnunet.data.layout import number_problems
from semi_nnunet.runs.commands import run_stages
from semi_nnunet.runs.recipe import Recipe, load_recipe
from semi_nnunet.runs.recipe_files import STAGES, find_recipe
from semi_nnunet.runs.stages import Place, commands, plans_of_recipe, steps_as_one
from semi_nnunet.util.errors import Problem, UserError, raise_if_any
from semi_nnunet.util.names import below_one


@dataclass(frozen=True, kw_only=True)
class Following:
    """The stages of a recipe that are followed, and the place.

    Args:
        source: folder of the downloaded files; None where nothing is converted.
        converted: number of the data set with all labels.
        split: number of the one in which some are hidden; None where the recipe hides none.
        distilled: number of the first one of pseudo labels; None where the recipe makes none.
        only: a stage of :data:`~.recipe_files.STAGES`, to do it alone; None: all.
        first: a stage, to begin with it; None: with the first.
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
    def wanted(self) -> tuple[str, ...]:
        """The stages that are asked for."""
        return (self.only,) if self.only else STAGES[STAGES.index(self.first or STAGES[0]) :]


def follow_recipe(name: str | Path, how: Following) -> Recipe:
    """Follow a recipe; every stage is a command that is printed, and skips what is done.

    Args:
        name: of a recipe that comes with the package, such as "la_4", or the path of a JSON file.
        how: which data sets, stages and devices.

    Returns:
        The recipe, with the published numbers to compare with.

    Raises:
        UserError: the recipe is wrong, a folder or number is missing, or a stage failed.
    """
    path = find_recipe(name)
    recipe = load_recipe(path)
    stages = commands(recipe, place_of(path, recipe, how))
    taken = steps_as_one({stage: stages[stage] for stage in stages if stage in how.wanted})
    chosen = [(stage, words) for stage, several in taken.items() for words in several]
    if not chosen:
        raise UserError(f"{path} has no stage {how.only}", fix=f"choose from {[*stages]}")
    print(f"# {recipe.title}")
    numbered = [
        (f"{number} of {len(chosen)}: {stage}", words)
        for number, (stage, words) in enumerate(chosen, start=1)
    ]
    run_stages(numbered, how.dry_run)
    return recipe


def place_of(path: Path, recipe: Recipe, how: Following) -> Place:
    """Find the place where the recipe of a file is followed.

    Raises:
        UserError: a folder or number is missing, one too many, or out of range.
    """
    problems = [*number_problems("-d", how.converted)]
    if how.split is not None:
        problems += number_problems("-o", how.split)
    problems += below_one({"--jobs": how.jobs, "-np": how.processes})
    report = (how.report or Path(path.stem + ".html")).absolute()
    if report.is_dir() or not report.parent.is_dir():
        what = f"must be a file in a folder that is there, got {report}"
        problems.append(Problem("--report", what, "create the folder, or correct it"))
    if recipe.labelled and how.split in (None, how.converted):
        what = "the recipe hides labels in a new data set, which needs a number of its own"
        problems.append(Problem("-o", what, "add -o NEW_ID"))
    if recipe.labelled is None and how.split is not None:
        problems.append(Problem("-o", "the recipe hides no labels", "leave it out"))
    problems += distilled_problems(recipe, how)
    converts = STAGES[0] in how.wanted
    if converts and how.source is None:
        fix = (
            f"add the folder of the files that semi_nnunet convert {recipe.converter} --help lists"
        )
        problems.append(Problem("SRC", "is missing", f"{fix}, or --from split"))
    raise_if_any("The recipe cannot be followed:", problems)
    return Place(
        how.source if converts else None,
        str(how.converted),
        str(how.split or how.converted),
        plans_of_recipe(path),
        report,
        how.processes,
        how.device,
        how.jobs,
        how.distilled,
    )


def distilled_problems(recipe: Recipe, how: Following) -> Iterator[Problem]:
    """Numbers of the data sets of pseudo labels that are missing, taken or one too many."""
    where, first = "--distilled", how.distilled
    if recipe.pseudo_labels is None:
        if first is not None:
            yield Problem(where, "the recipe has no pseudo labels", "leave it out")
        return
    if first is None:
        what = "the recipe makes a data set of pseudo labels, which needs a number of its own"
        yield Problem(where, what, f"add {where} NEW_ID")
        return
    numbers = range(first, first + recipe.pseudo_labels.rounds)
    if {how.converted, how.split} & {*numbers} or numbers[0] < 1 or numbers[-1] > 999:
        what = f"its data sets, {numbers[0]} to {numbers[-1]}, must be new ones from 1 to 999"
        yield Problem(where, what, "choose another number")
