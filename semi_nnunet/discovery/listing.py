"""Which trainers there are: the classes of nnU-Net's search file of ours, and nnU-Net's own."""

from __future__ import annotations

import ast
import os
from functools import cache
from pathlib import Path

from semi_nnunet.discovery.register import TRAINERS_FOLDER, shim_file, trainer_folders
from semi_nnunet.discovery.trainers import semi_nnunet_trainers
from semi_nnunet.trainer import SemiTrainer


def trainer_classes() -> dict[str, type[SemiTrainer]]:
    """Name -> class of every trainer of this package."""
    return {name: getattr(semi_nnunet_trainers, name) for name in semi_nnunet_trainers.__all__}


def other_trainers() -> frozenset[str]:
    """Names of nnU-Net's own trainers and variants, and of those in nnUNet_extTrainer."""
    return _trainers_in(trainer_folders())


@cache
def _trainers_in(folders: str) -> frozenset[str]:
    """Read, not imported: nnU-Net imports a trainer when it is asked for."""
    stock = shim_file().parents[1]
    roots = [stock, *(Path(one) for one in folders.split(os.pathsep))]
    names = set[str]()
    for root in roots:
        if root == TRAINERS_FOLDER:
            continue
        for path in root.rglob("*.py"):
            names |= classes_in(path)
    return frozenset(names)


def classes_in(path: Path) -> set[str]:
    """The classes that a file defines; none of one that is no Python."""
    try:
        tree = ast.parse(path.read_text())
    except (OSError, ValueError, SyntaxError):
        return set()
    return {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
