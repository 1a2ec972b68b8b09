"""List the recipes of published experiments, which semi_nnunet run follows by their names.

    semi_nnunet recipes
    semi_nnunet run la_4 ~/LA -d 501 -o 601

A recipe is a JSON file; to change one, edit a copy of it and give its path to semi_nnunet run.
"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No arguments."""


def run(args: argparse.Namespace) -> None:
    from semi_nnunet.runs.recipe_files import recipes_folder, titles

    found = list(titles())
    width = max((len(name) for name, _ in found), default=0)
    for name, title in found:
        print(f"{name:<{width}}  {title}")
    print(f"\nin {recipes_folder()}; next: semi_nnunet run NAME SRC -d ID -o NEW_ID --dry-run")
