"""Checks when a training is launched: one launch of a fold, with plans of their own name.

A second launch would write into the files of the first. nnU-Net gives a trainer the content of the
plans file only: if the names inside are not those of the file, as in plans copied by hand, the
results would go to other plans.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from semi_nnunet.raw.plans import require_own_names
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import remove_leftovers, require_space
from semi_nnunet.util.lock import hold_until_exit, note_of

SPACE_TO_START = 2**20  # bytes, for plans.json and other small files
TRAINING_LOCK = ".semi_training.lock"  # in the folder of the fold
# module, function and variable with the plans file
ENTRY_POINT = ("nnunetv2.run.run_training", "get_trainer_from_args", "plans_file")


def lock_fold(folder: str | Path) -> None:
    """Lock a fold's folder until this process ends, and remove leftovers of a killed training.

    The lock is not that of ``crossval``, which starts trainings while it holds its own. Space is
    checked because nnU-Net does not write its first files atomically.

    Raises:
        UserError: another process trains this fold, on this host or another; or the disk is full.
    """
    lock = Path(folder) / TRAINING_LOCK
    holder = hold_until_exit(lock)
    if holder is not None:
        raise UserError(
            f"{holder} trains {folder} already, and two trainings would spoil each other's files",
            fix=f"wait for it or stop it, then start this one again with --c; if it has ended and "
            f"this file system has no locks, delete {note_of(lock)}",
        )
    remove_leftovers(folder)
    require_space(Path(folder), SPACE_TO_START)


def require_requested_names(plans: Mapping[str, Any]) -> None:
    """Raise a :class:`UserError` if plans have other names inside than the file that was asked for.

    Plans that do not come from nnU-Net's entry point are not checked.
    """
    if (path := find_requested_plans()) is not None:
        require_own_names(path, plans)


def find_requested_plans() -> Path | None:
    """Return the plans file that nnU-Net's entry point has read, or None outside of it.

    Only the entry point knows the path, so it is taken from the calling function.
    """
    module, function, variable = ENTRY_POINT
    frame = sys._getframe()
    while frame is not None:
        code, names = frame.f_code, frame.f_globals
        if code.co_name == function and names.get("__name__") == module:
            path = frame.f_locals.get(variable)
            return Path(path) if isinstance(path, str) else None
        frame = frame.f_back  # type: ignore[assignment]
    return None
