"""The files of the recipes, in the installed package or next to it in a checkout, and stages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json
from semi_nnunet.util.names import unknown

PACKAGE = Path(__file__).resolve().parents[1]
STAGES = (  # of following a recipe, in this order; each is one command or several
    "convert", "split", "preprocess", "plan", "train", "predict", "evaluate", "compare", "report",
    "pseudo-dataset", "distil",
)  # fmt: skip


def find_recipes_folder() -> Path:
    """Return the folder of the recipes; in a checkout that is not installed, ``plans``.

    Raises:
        UserError: neither folder exists.
    """
    folders = PACKAGE / "recipes", PACKAGE.parent / "plans"
    for folder in folders:
        if folder.is_dir():
            return folder
    raise UserError(
        f"the recipes are missing: neither {folders[0]} nor {folders[1]} exists",
        fix="install the package again, or give the path of a recipe",
    )


def find_recipe_files() -> dict[str, Path]:
    """Return name -> file of every recipe that comes with the package.

    Raises:
        UserError: the folder of the recipes is missing.
    """
    return {path.stem: path for path in sorted(find_recipes_folder().glob("*.json"))}


def list_recipe_titles() -> Iterator[tuple[str, str]]:
    """Yield name and title of every recipe that comes with the package.

    Raises:
        UserError: the folder of the recipes is missing, or a file cannot be read.
    """
    for name, path in find_recipe_files().items():
        yield name, str(read_json(path)["title"])


def find_recipe(name: str | Path) -> Path:
    """Return the file of a recipe.

    >>> find_recipe("la_4").name
    'la_4.json'

    Args:
        name: of a recipe of the package, such as "la_4", or the path of a JSON file.

    Returns:
        Its path; a path that ends with .json need not exist.

    Raises:
        UserError: there is no recipe of that name; the fix suggests the most similar one.
    """
    path = Path(name)
    if path.is_file() or path.suffix == ".json" or path.name != str(name):
        return path
    recipes = find_recipe_files()
    if str(name) in recipes:
        return recipes[str(name)]
    why = "is neither the path of a JSON file nor the name of a recipe"
    raise UserError("There is no such recipe:", list(unknown("recipe", [str(name)], recipes, why)))
