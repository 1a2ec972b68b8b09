"""A lock on the folder of a fold: a second launch would write into the files of the first."""

from __future__ import annotations

from pathlib import Path

from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import remove_leftovers, require_space
from semi_nnunet.util.lock import hold_until_exit, note_of

SPACE_TO_START = 2**20  # bytes, for plans.json and other small files
TRAINING_LOCK = ".semi_training.lock"  # in the folder of the fold


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
