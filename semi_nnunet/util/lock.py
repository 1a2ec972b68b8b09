"""One process works on a job at a time, on any of the hosts that share the results folder.

The system's file lock decides, so that a killed process holds nothing; a note beside it says who.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from semi_nnunet.util.files import write_json

WHILE_ASKED_S = 0.5  # status may hold the lock for a moment, to see whether somebody does


@contextmanager
def held(path: Path) -> Iterator[str | None]:
    """Hold the lock during the block; yields who else holds it, if somebody does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    note = path.with_name(path.name + ".json")
    lock = FileLock(path)
    try:
        lock.acquire(timeout=WHILE_ASKED_S)
    except Timeout:
        yield noted(note)
        return
    try:
        write_json(note, {"host": socket.gethostname(), "process": os.getpid()})
        yield None
    finally:
        note.unlink(missing_ok=True)
        lock.release()


def noted(note: Path) -> str:
    """Who a note names."""
    try:
        holder = json.loads(note.read_text())
        return f"process {holder['process']} on {holder['host']}"
    except (OSError, ValueError, KeyError):  # it is being written
        return "another process"


def holder_of(path: Path) -> str | None:
    """Who holds the lock; None if nobody does. Writes nothing, so that anybody may ask."""
    if not path.exists():
        return None
    note = path.with_name(path.name + ".json")
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return noted(note)
    except OSError:  # somebody else's folder: the note is all there is
        return noted(note) if note.is_file() else None
    lock.release()
    return None
