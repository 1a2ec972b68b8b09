"""Follow a recipe: from the files of a published benchmark to the report, in one command.

    semi_nnunet recipes                                   which there are
    semi_nnunet run la_4 ~/LA -d 501 -o 601
    semi_nnunet run la_4 ~/LA -d 501 -o 601 --dry-run
    semi_nnunet run la_4 -d 501 -o 601 --from train
    semi_nnunet run my_recipe.json -d 501 -o 601 --only report

The stages are convert, split, preprocess, plan, train, predict, evaluate (steps of crossval),
compare and report, of some recipes also distil and slim: verbs of this program, printed as they
could be typed. Run it again to go on: every stage skips what it has done. -d is the number of the
data set with all labels, -o that of the one in which some are hidden, --distilled that of the first
one with pseudo labels. Each recipe has plans of its own, named after its file. To change budget,
seeds or trainers, edit a copy of the recipe.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from semi_nnunet.cli import launching
    from semi_nnunet.runs.recipe_files import STAGES

    add = parser.add_argument
    add("recipe", metavar="RECIPE", help="name of one of semi_nnunet recipes, or a JSON file")
    add("source", type=Path, nargs="?", metavar="SRC", help="folder of the downloaded files")
    add("-d", dest="converted", type=int, required=True, metavar="ID", help="number of a data set")
    add("-o", dest="split", type=int, metavar="NEW_ID", help="number of the one with hidden labels")
    add("--distilled", type=int, metavar="NEW_ID", help="number of the one of pseudo labels; where "
        "the recipe has rounds of them, numbers from it on")  # fmt: skip
    part = parser.add_mutually_exclusive_group()
    part.add_argument("--only", choices=STAGES, metavar="STAGE", help=", ".join(STAGES))
    part.add_argument("--from", dest="first", choices=STAGES, metavar="STAGE", help="and the rest")
    add("--dry-run", action="store_true", help="print the commands")
    launching.add_device(parser)
    add("--jobs", type=int, help="trainings at a time (default: one for each GPU; 1 on the CPU)")
    add("-np", dest="processes", type=int, default=2, help="to convert with (default: %(default)s)")
    add("--report", type=Path, help="the HTML file (default: RECIPE's name, .html, here)")


def run(args: argparse.Namespace) -> None:
    from dataclasses import fields

    from semi_nnunet.runs.follow import Following, follow_recipe

    how = {one.name: getattr(args, one.name) for one in fields(Following)}
    recipe = follow_recipe(args.recipe, Following(**how))
    print("\n# published")
    for one in recipe.published:
        print(f"#   {one.method}: {one.metric} {one.value} ({one.source})")
    print(f"# {recipe.comparable}")
