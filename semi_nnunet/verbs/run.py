"""``semi_nnunet run``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from semi_nnunet.verbs.options import (
    FIRST,
    JOBS,
    MORE,
    ComputeDevice,
    Flag,
    Processes,
    one_of,
    option,
)

if TYPE_CHECKING:
    from semi_nnunet.workflows.recipe import Recipe

logger = logging.getLogger(__name__)
Stage = Literal[
    "convert", "split", "preprocess", "plan", "train", "predict", "evaluate", "pseudo-dataset",
    "distil", "compare", "report",
]  # fmt: skip
STAGES = one_of()


def run(
    recipe: str | None = None,
    source: Path | None = None,
    /,
    *,
    converted: Annotated[int | None, option()] = None,
    split: Annotated[int | None, option()] = None,
    list: Flag = False,
    dry_run: Flag = False,
    only: Annotated[Stage | None, option(group=(FIRST, STAGES))] = None,
    first: Annotated[Stage | None, option("--from", group=(FIRST, STAGES))] = None,
    pseudo_labelled: Annotated[int | None, option(group=MORE)] = None,
    out: Annotated[Path | None, option("-o", group=MORE)] = None,
    processes: Processes = 2,
    device: ComputeDevice = None,
    jobs: Annotated[int | None, option(group=JOBS)] = None,
) -> Recipe | None:
    """Follow a recipe: from the files of a published benchmark to the report, in one command.

        semi_nnunet run --list
        semi_nnunet run la_4 ~/LA --converted 501 --split 601
        semi_nnunet run la_4 ~/LA --converted 501 --split 601 --dry-run
        semi_nnunet run la_4 --converted 501 --split 601 --from train
        semi_nnunet run my_recipe.json --converted 501 --split 601 --only report

    The stages are convert, split, preprocess, plan, train, predict, evaluate (steps of crossval),
    compare and report, and for some recipes pseudo-dataset and distil: verbs of this program,
    printed as you could type them. Repeat the command to continue: every stage skips finished work.
    Each recipe has plans of its own, named after its file. A recipe is a JSON file: to change
    budget, seeds or trainers, edit a copy of it and give its path.

    Args:
        recipe: Name of a recipe, or a JSON file.
        source: Folder of the downloaded files.
        converted: Number of the data set with all labels.
        split: Number of the data set in which some labels are hidden.
        list: List the recipes and exit.
        dry_run: Print the commands.
        only: Only this stage.
        first: This stage and all later ones.
        pseudo_labelled: Number of the data set with pseudo labels; of the first, if the recipe has
            rounds.
        out: The HTML file (default: the recipe's name, .html, here).
        processes: Worker processes of the conversion.
        device: Where networks compute (default: cuda if there is a GPU).
        jobs: Trainings at a time (default: one for each GPU; 1 on the CPU).

    Returns:
        The recipe, with the published numbers to compare with; None with ``list``.

    Raises:
        UserError: the recipe is wrong, a folder or number is missing, or a stage failed.
    """
    if list:
        list_recipes()
        return None
    from semi_nnunet.util.errors import UserError
    from semi_nnunet.workflows.follow import FollowOptions, follow_recipe

    if recipe is None or converted is None:
        raise UserError(
            f"{'a recipe' if recipe is None else '--converted'} is missing",
            fix="semi_nnunet run RECIPE SRC --converted ID --split ID; semi_nnunet run --list",
        )
    followed = follow_recipe(
        recipe,
        FollowOptions(
            source=source,
            converted=converted,
            split=split,
            distilled=pseudo_labelled,
            only=only,
            first=first,
            dry_run=dry_run,
            device=device,
            jobs=jobs,
            processes=processes,
            report=out,
        ),
    )
    lines = ["\n# published"]
    lines += [
        f"#   {row.method}: {row.metric} {row.value} ({row.source})" for row in followed.published
    ]
    logger.info("\n".join([*lines, f"# {followed.comparable}"]))
    return followed


def list_recipes() -> None:
    """Log the names and titles of all recipes."""
    from semi_nnunet.workflows.recipe_files import find_recipes_folder, list_recipe_titles

    recipes = [*list_recipe_titles()]
    width = max((len(name) for name, _ in recipes), default=0)
    lines = [f"{name:<{width}}  {title}" for name, title in recipes]
    lines += [
        "",
        f"in {find_recipes_folder()}",
        "next: semi_nnunet run NAME SRC --converted ID --split ID --dry-run",
    ]
    logger.info("\n".join(lines))
