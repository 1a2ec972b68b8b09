"""Follow a recipe: from the files of a published benchmark to the report, in one command.

    semi_nnunet run plans/la_4.json ~/LA -d 501 -o 601
    semi_nnunet run plans/la_4.json ~/LA -d 501 -o 601 --dry-run
    semi_nnunet run plans/la_4.json -d 501 -o 601 --from train
    semi_nnunet run plans/la_4.json -d 501 -o 601 --only report

The stages are convert, split, preprocess, plan, train, predict, evaluate (steps of crossval),
compare and report: verbs of this program, printed as they could be typed. Run it again to go
on: every stage skips what it has done. -d is the number of the data set with all labels, -o that of
the one in which some are hidden. Each recipe has plans of its own, named after its file. To change
budget, seeds or trainers, edit a copy of the recipe.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from semi_nnunet.runs.recipe import Recipe
    from semi_nnunet.runs.stages import Place

STAGES = (
    *("convert", "split", "preprocess", "plan"),
    *("train", "predict", "evaluate", "compare", "report"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from semi_nnunet.cli import launching

    add = parser.add_argument
    add("recipe", type=Path, metavar="RECIPE", help="a JSON file, such as plans/la_4.json")
    add("source", type=Path, nargs="?", metavar="SRC", help="folder of the downloaded files")
    add("-d", dest="converted", type=int, required=True, metavar="ID", help="number of a data set")
    add("-o", dest="split", type=int, metavar="NEW_ID", help="number of the one with hidden labels")
    part = parser.add_mutually_exclusive_group()
    part.add_argument("--only", choices=STAGES, metavar="STAGE", help=", ".join(STAGES))
    part.add_argument("--from", dest="first", choices=STAGES, metavar="STAGE", help="and the rest")
    add("--dry-run", action="store_true", help="print the commands")
    launching.add_device(parser)
    add("--jobs", type=int, help="trainings at a time (default: one for each GPU; 1 on the CPU)")
    add("-np", dest="processes", type=int, default=2, help="to convert with (default: %(default)s)")
    add("--report", type=Path, help="the HTML file (default: RECIPE's name, .html, here)")


def run(args: argparse.Namespace) -> None:
    from semi_nnunet.runs.commands import run_stages
    from semi_nnunet.runs.recipe import load_recipe
    from semi_nnunet.runs.stages import commands, merged
    from semi_nnunet.util.errors import UserError

    recipe = load_recipe(args.recipe)
    stages = commands(recipe, place_of(args, recipe))
    first = STAGES.index(args.only or args.first or STAGES[0])
    wanted = [args.only] if args.only else STAGES[first:]
    taken = merged({stage: stages[stage] for stage in stages if stage in wanted})
    chosen = [(stage, words) for stage, several in taken.items() for words in several]
    if not chosen:
        raise UserError(f"{args.recipe} has no stage {args.only}. Fix: choose from {[*stages]}")
    print(f"# {recipe.title}")
    numbered = [
        (f"{number} of {len(chosen)}: {stage}", words)
        for number, (stage, words) in enumerate(chosen, start=1)
    ]
    run_stages(numbered, args.dry_run)
    print("\n# published")
    for one in recipe.published:
        print(f"#   {one.method}: {one.metric} {one.value} ({one.source})")
    print(f"# {recipe.comparable}")


def place_of(args: argparse.Namespace, recipe: Recipe) -> Place:
    """Where to follow the recipe.

    Raises:
        UserError: a folder or number is missing, one too many, or out of range.
    """
    from semi_nnunet.cli.launching import below_one
    from semi_nnunet.data.layout import number_problems
    from semi_nnunet.runs.stages import Place, plans_of_recipe
    from semi_nnunet.util.errors import Problem, UserError

    problems = [*number_problems("-d", args.converted)]
    if args.split is not None:
        problems += number_problems("-o", args.split)
    problems += below_one({"--jobs": args.jobs, "-np": args.processes})
    report = (args.report or Path(args.recipe.stem + ".html")).absolute()
    if report.is_dir() or not report.parent.is_dir():
        what = f"must be a file in a folder that is there, got {report}"
        problems.append(Problem("--report", what, "create the folder, or correct it"))
    if recipe.labelled and args.split in (None, args.converted):
        what = "the recipe hides labels in a new data set, which needs a number of its own"
        problems.append(Problem("-o", what, "add -o NEW_ID"))
    if recipe.labelled is None and args.split is not None:
        problems.append(Problem("-o", "the recipe hides no labels", "leave it out"))
    converts = args.only in (None, STAGES[0]) and args.first in (None, STAGES[0])
    if converts and args.source is None:
        fix = (
            f"add the folder of the files that semi_nnunet convert {recipe.converter} --help lists"
        )
        problems.append(Problem("SRC", "is missing", f"{fix}, or --from split"))
    if problems:
        raise UserError("The recipe cannot be followed:", problems)
    return Place(
        args.source if converts else None,
        str(args.converted),
        str(args.split or args.converted),
        plans_of_recipe(args.recipe),
        report,
        args.processes,
        args.device,
        args.jobs,
    )
