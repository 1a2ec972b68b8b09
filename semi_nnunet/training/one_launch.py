"""One launch trains a fold at a time: a second one would write between the lines of the first."""

from __future__ import annotations

from pathlib import Path

from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import remove_leftovers, require_space
from semi_nnunet.util.lock import hold_until_exit, note_of

SPACE_TO_BEGIN = 2**20  # bytes, for plans.json and the like
LOCK = ".semi_training.lock"  # in the folder of the fold


def take_folder(folder: str | Path) -> None:
    """Hold a fold's folder until this process ends, and remove what a killed one left half-written.

    There must be space for what nnU-Net writes in place when it begins.

    The lock is not that of ``crossval``, which starts trainings while it holds its own.

    Raises:
        UserError: another process trains this fold, on this host or another; or the disk is full.
    """
    lock = Path(folder) / LOCK
    other = hold_until_exit(lock)
    if other is not None:
        raise UserError(
            f"{other} trains {folder} already, and two trainings would spoil each other's files. ",
            fix=f"wait for it or stop it, then start this one again with --c; if it has ended and "
            f"this file system has no locks, delete {note_of(lock)}",
        )
    remove_leftovers(folder)
    require_space(Path(folder), SPACE_TO_BEGIN)
