"""The names and facts of all trainers: ours, nnU-Net's and the user's.

Ours are in a table, and other names are read from the files, because an import of nnU-Net's trainer
takes seconds. Only folders of the user's that mention this package are imported.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from semi_nnunet.discovery.register import nnunet_trainers_folder, user_folders
from semi_nnunet.discovery.trainers.semi_nnunet_trainers import TRAINERS, TrainerFacts
from semi_nnunet.util.errors import Problem
from semi_nnunet.util.names import unknown

if TYPE_CHECKING:
    from semi_nnunet.training.trainer import SemiTrainer


def our_trainers() -> dict[str, TrainerFacts]:
    """Return name -> facts of every trainer of this package, and of the user's built on ours.

    >>> our_trainers()["SemiDistillationTrainer"].taught_by
    'SemiMeanTeacherTrainer'
    """
    users = {
        name: TrainerFacts(file, None, trainer.uses_unlabelled, trainer.segments, trainer.taught_by)
        for name, (file, trainer) in user_trainers().items()
    }
    return {**TRAINERS, **users}


def user_trainers() -> dict[str, tuple[Path, type[SemiTrainer]]]:
    """Return name -> file and class of the trainers in ``nnUNet_extTrainer`` built on ours."""
    return _import_user_trainers(tuple(user_folders()))


@cache
def _import_user_trainers(folders: tuple[Path, ...]) -> dict[str, tuple[Path, type[SemiTrainer]]]:
    trainers: dict[str, tuple[Path, type[SemiTrainer]]] = {}
    for folder in folders:
        files = _find_classes(folder)
        if any(b"semi_nnunet" in path.read_bytes() for path in files.values()):
            from semi_nnunet.discovery.classes import import_user_trainers  # takes seconds

            classes = import_user_trainers(folder, files.keys() - TRAINERS.keys())
            trainers |= {name: (files[name], trainer) for name, trainer in classes.items()}
    return trainers


def summary_of(trainer: str) -> str:
    """Return the summary of a trainer's method: the first line of the file.

    >>> summary_of("SemiCPSTrainer")
    'Cross Pseudo Supervision (Chen et al., CVPR 2021, arXiv:2106.01226).'
    """
    return (ast.get_docstring(_parse(our_trainers()[trainer].file)) or "").partition("\n")[0]


def stock_trainers() -> frozenset[str]:
    """Return the names of nnU-Net's own trainers and variants."""
    return frozenset(_find_classes(nnunet_trainers_folder()))


def other_trainers() -> frozenset[str]:
    """Return the names of nnU-Net's own trainers and of those in ``nnUNet_extTrainer``."""
    return stock_trainers().union(*map(_find_classes, user_folders()))


def all_trainers() -> list[str]:
    """Return the names of our trainers, of nnU-Net's and of those in ``nnUNet_extTrainer``."""
    return [*TRAINERS, *sorted(other_trainers() - {*TRAINERS})]


def unknown_trainers(names: Sequence[str]) -> Iterator[Problem]:
    """Yield a problem for each name of a trainer that does not exist."""
    yield from unknown("trainer", names, all_trainers())


@cache
def _find_classes(folder: Path) -> dict[str, Path]:
    """Return name -> file of every class in a folder and the folders below it."""
    return {
        node.name: path
        for path in sorted(folder.rglob("*.py"))
        for node in _parse(path).body
        if isinstance(node, ast.ClassDef)
    }


def _parse(path: Path) -> ast.Module:
    """Return the syntax tree of a file; an empty one if it is no Python."""
    try:
        return ast.parse(path.read_bytes())  # as Python reads it, with its encoding
    except (OSError, ValueError, SyntaxError):
        return ast.Module([], [])
