"""The classes of trainers; importing them takes seconds."""

from __future__ import annotations

import logging
from collections.abc import Collection
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_class_by_name import recursive_find_python_class
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

from semi_nnunet.discovery.trainers import semi_nnunet_trainers
from semi_nnunet.training.trainer import SemiTrainer

logger = logging.getLogger(__name__)


def trainer_classes() -> dict[str, type[SemiTrainer]]:
    """Return name -> class of every trainer of this package."""
    return {name: getattr(semi_nnunet_trainers, name) for name in semi_nnunet_trainers.TRAINERS}


def find_trainer_class(name: str) -> type[nnUNetTrainer]:
    """Return the class of a trainer of ours, of nnU-Net's, or in ``nnUNet_extTrainer``.

    Raises:
        RuntimeError: there is no such trainer.
    """
    if name in semi_nnunet_trainers.TRAINERS:
        return trainer_classes()[name]
    with redirect_stdout(StringIO()):  # nnU-Net prints where it searches
        trainer_class: type[nnUNetTrainer] = recursive_find_trainer_class_by_name(name)
    return trainer_class


def import_user_trainers(folder: Path, names: Collection[str]) -> dict[str, type[SemiTrainer]]:
    """Import the trainers of a folder that are built on ours, as nnU-Net would.

    Files that cannot be imported are logged.

    Args:
        folder: named in ``nnUNet_extTrainer``.
        names: of classes in its files.

    Returns:
        name -> class of those that are methods.
    """
    classes, errors = dict[str, type[SemiTrainer]](), dict[str, str]()
    for name in names:
        try:
            found = recursive_find_python_class(str(folder), name, None, base_folder=str(folder))
        except (Exception, SystemExit) as error:
            errors[repr(error)] = name
            continue
        is_ours = isinstance(found, type) and issubclass(found, SemiTrainer)
        if is_ours and name in SemiTrainer.methods:
            classes[name] = found
    for message, name in errors.items():
        logger.warning(f"WARNING: {folder} has files that cannot be imported ({name}): {message}")
    return classes
