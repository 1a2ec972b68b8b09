"""Which trainers there are: the classes of nnU-Net's search file of ours, and nnU-Net's own."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from semi_nnunet.discovery.register import TRAINERS_FOLDER, shim_file, trainer_folders
from semi_nnunet.discovery.trainers import semi_nnunet_trainers
from semi_nnunet.settings.common import SemiSettings
from semi_nnunet.training.trainer import SemiTrainer
from semi_nnunet.util.errors import Problem
from semi_nnunet.util.names import unknown


def trainer_classes() -> dict[str, type[SemiTrainer]]:
    """Name -> class of every trainer of this package."""
    return {name: getattr(semi_nnunet_trainers, name) for name in semi_nnunet_trainers.__all__}


def settings_classes() -> dict[str, type[SemiSettings]]:
    """Name -> settings class of every trainer of this package."""
    return {name: trainer.settings_class for name, trainer in trainer_classes().items()}


def stock_trainers() -> frozenset[str]:
    """Names of nnU-Net's own trainers and variants."""
    return _trainers_in(shim_file().parents[1])


def other_trainers() -> frozenset[str]:
    """Names of nnU-Net's own trainers and variants, and of those in nnUNet_extTrainer."""
    folders = {Path(one) for one in trainer_folders().split(os.pathsep)} - {TRAINERS_FOLDER}
    return stock_trainers().union(*map(_trainers_in, folders))


def all_trainers() -> list[str]:
    """Names of ours, of nnU-Net's and of those in nnUNet_extTrainer."""
    return [*trainer_classes(), *sorted(other_trainers())]


def unknown_trainers(names: Sequence[str]) -> Iterator[Problem]:
    """Trainers that are neither ours nor nnU-Net's nor in nnUNet_extTrainer."""
    yield from unknown("trainer", names, all_trainers())


@cache
def _trainers_in(folder: Path) -> frozenset[str]:
    """Read, not imported: nnU-Net imports a trainer when it is asked for."""
    return frozenset().union(*map(classes_in, folder.rglob("*.py")))


def classes_in(path: Path) -> set[str]:
    """The classes that a file defines; none of one that is no Python."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):
        return set()
    return {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
