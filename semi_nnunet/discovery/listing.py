"""Which trainers there are, ours, nnU-Net's and the user's: read from their files, not imported.

An import of nnU-Net's trainer takes seconds, and a file of the user's may do anything.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

from semi_nnunet.discovery.register import TRAINERS_FOLDER, shim_file, trainer_folders
from semi_nnunet.util.errors import Problem
from semi_nnunet.util.names import unknown

ROOT = TRAINERS_FOLDER.parents[2]  # holds the package


@dataclass(frozen=True)
class TrainerFacts:
    """What the body of a trainer's class says about it, or else that of SemiTrainer.

    Args:
        file: in which the class is.
        uses_unlabelled: it needs unlabelled cases.
        segments: its network predicts classes, so that there is something to validate.
        taught_by: the trainer whose trained network it needs by default.
    """

    file: Path
    uses_unlabelled: bool = True
    segments: bool = True
    taught_by: str | None = None


@cache
def our_trainers() -> dict[str, TrainerFacts]:
    """Name -> facts of every trainer of this package."""
    found: dict[str, TrainerFacts] = {}
    for node in parsed(TRAINERS_FOLDER / "semi_nnunet_trainers.py").body:
        if isinstance(node, ast.ImportFrom) and node.module:
            path = ROOT.joinpath(*node.module.split(".")).with_suffix(".py")
            bodies = class_bodies(path)
            found |= {one.name: facts_in(path, bodies[one.name]) for one in node.names}
    return found


def facts_in(file: Path, body: Sequence[ast.stmt]) -> TrainerFacts:
    """The facts that the body of a class in a file assigns."""
    names = {field.name for field in fields(TrainerFacts)}
    return TrainerFacts(
        file=file,
        **{
            target.id: ast.literal_eval(node.value)
            for node in body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name) and target.id in names
        },
    )


def summary_of(trainer: str) -> str:
    """The first line of the file of a trainer of this package, which says what its method is."""
    text = ast.get_docstring(parsed(our_trainers()[trainer].file)) or ""
    return text.partition("\n")[0]


def stock_trainers() -> frozenset[str]:
    """Names of nnU-Net's own trainers and variants."""
    return _trainers_in(shim_file().parents[1])


def other_trainers() -> frozenset[str]:
    """Names of nnU-Net's own trainers and variants, and of those in nnUNet_extTrainer."""
    folders = {Path(one) for one in trainer_folders().split(os.pathsep)} - {TRAINERS_FOLDER}
    return stock_trainers().union(*map(_trainers_in, folders))


def all_trainers() -> list[str]:
    """Names of ours, of nnU-Net's and of those in nnUNet_extTrainer."""
    return [*our_trainers(), *sorted(other_trainers())]


def unknown_trainers(names: Sequence[str]) -> Iterator[Problem]:
    """Trainers that are neither ours nor nnU-Net's nor in nnUNet_extTrainer."""
    yield from unknown("trainer", names, all_trainers())


@cache
def _trainers_in(folder: Path) -> frozenset[str]:
    return frozenset().union(*map(classes_in, folder.rglob("*.py")))


def classes_in(path: Path) -> set[str]:
    """The classes that a file defines; none of one that is no Python."""
    return {*class_bodies(path)}


def class_bodies(path: Path) -> dict[str, list[ast.stmt]]:
    """Name -> body of each class that a file defines."""
    return {node.name: node.body for node in parsed(path).body if isinstance(node, ast.ClassDef)}


def parsed(path: Path) -> ast.Module:
    """The syntax tree of a file; an empty one if it is no Python."""
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):
        return ast.Module([], [])
