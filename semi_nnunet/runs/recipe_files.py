"""Where the recipes lie, in the installed package or beside it in a checkout, and their stages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json
from semi_nnunet.util.names import unknown

PACKAGE = Path(__file__).resolve().parents[1]
STAGES = (  # of following a recipe, in this order; each is a command, or several
    "convert", "split", "preprocess", "plan", "train", "predict", "evaluate", "compare", "report",
    "distil", "slim",
)  # fmt: skip


def recipes_folder() -> Path:
    """The folder of the recipes; in a checkout that is not installed, ``plans`` beside the package.

    Raises:
        UserError: there is neither.
    """
    installed, beside = PACKAGE / "recipes", PACKAGE.parent / "plans"
    for folder in (installed, beside):
        if folder.is_dir():
            return folder
    raise UserError(
        f"the recipes are not there: looked for {installed} and {beside}",
        fix="install the package again, or give the path of a recipe",
    )


def known_recipes() -> dict[str, Path]:
    """Name -> file of every recipe that comes with the package.

    Raises:
        UserError: the folder of the recipes is not there.
    """
    return {path.stem: path for path in sorted(recipes_folder().glob("*.json"))}


def titles() -> Iterator[tuple[str, str]]:
    """Name and title of every recipe that comes with the package.

    Raises:
        UserError: the folder of the recipes is not there, or a file cannot be read.
    """
    for name, path in known_recipes().items():
        yield name, str(read_json(path)["title"])


def find_recipe(name: str | Path) -> Path:
    """The file of a recipe.

    Args:
        name: of one that comes with the package, such as "la_4", or the path of a JSON file.

    Returns:
        Its path; one that ends with .json need not be there.

    Raises:
        UserError: there is none of that name; the fix names the nearest.
    """
    path = Path(name)
    if path.is_file() or path.suffix == ".json" or path.name != str(name):
        return path
    known = known_recipes()
    if str(name) in known:
        return known[str(name)]
    why = "is neither the path of a JSON file nor the name of a recipe"
    raise UserError("There is no such recipe:", list(unknown("recipe", [str(name)], known, why)))
