"""One process works on a job at a time, on any of the hosts that share the results folder.

The system's file lock decides, so that a killed process holds nothing; a note beside it says who,
where and since when. On a file system without locks, such as some NFS mounts, the note decides: it
holds while its process lives, which another host cannot see.
"""

from __future__ import annotations

import atexit
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from semi_nnunet.util.files import write_json

WHILE_ASKED_S = 0.5  # status may hold the lock for a moment, to see whether somebody does
OF_ANOTHER_CONTENT = (ValueError, KeyError, TypeError, RecursionError)  # it is being written, say


@contextmanager
def held(path: Path) -> Iterator[str | None]:
    """Hold the lock during the block; yields who else holds it, if somebody does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    note = note_of(path)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=WHILE_ASKED_S)
    except Timeout:
        yield noted(note)
        return
    with noted_and_released(lock, note):
        yield None


@contextmanager
def held_in_turn(path: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock during the block; while somebody else holds it, wait.

    Args:
        path: the lock.
        say: told once who is waited for.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    note = note_of(path)
    lock = FileLock(path)
    try:
        try:
            lock.acquire(timeout=WHILE_ASKED_S)
        except Timeout:
            say(noted(note))
            lock.acquire()
    except (OSError, NotImplementedError):  # no locks here
        if is_of_the_living(note):
            say(noted(note))
        while is_of_the_living(note):
            time.sleep(WHILE_ASKED_S)
    with noted_and_released(lock, note):
        yield


@contextmanager
def noted_and_released(lock: FileLock, note: Path) -> Iterator[None]:
    """During the block a note says that this process holds the lock; then it is free."""
    try:
        write_note(note)
        yield
    finally:
        note.unlink(missing_ok=True)
        lock.release()


def hold_until_exit(path: Path) -> str | None:
    """Hold the lock until this process ends, however it ends.

    A process that holds it already goes on holding it.

    Returns:
        Who else holds it, if somebody does; on a file system without locks, who wrote the note, if
        that process lives or is of another host.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    note = note_of(path)
    if path in _HELD:
        return None
    lock = FileLock(path)
    try:
        lock.acquire(timeout=WHILE_ASKED_S)
    except Timeout:
        if not is_of_the_dead(note):  # else its workers have outlived it, and end soon
            return noted(note)
    except (OSError, NotImplementedError):  # no locks here
        if is_of_the_living(note):
            return noted(note)
    _HELD[path] = lock
    write_note(note)
    atexit.register(note.unlink, missing_ok=True)
    return None


_HELD: dict[Path, FileLock] = {}  # what this process holds until its end


def note_of(path: Path) -> Path:
    """The note beside a lock."""
    return path.with_name(path.name + ".json")


def write_note(note: Path) -> None:
    """Say that this process holds the lock."""
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    write_json(note, {"host": socket.gethostname(), "process": os.getpid(), "since": now})


def is_of_the_dead(note: Path) -> bool:
    """Whether a note names a process of this host that has ended, or this very process."""
    try:
        holder = json.loads(note.read_text(encoding="utf-8"))
        if holder["host"] != socket.gethostname():
            return False
        os.kill(int(holder["process"]), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError, *OF_ANOTHER_CONTENT):
        return False
    return bool(holder["process"] == os.getpid())


def is_of_the_living(note: Path) -> bool:
    """Whether there is a note of a process that lives, or of another host, which may live."""
    return note.is_file() and not is_of_the_dead(note)


def noted(note: Path) -> str:
    """Who a note names."""
    try:
        holder = json.loads(note.read_text(encoding="utf-8"))
        since = f" since {holder['since']}" if "since" in holder else ""
        return f"process {holder['process']} on {holder['host']}{since}"
    except (OSError, *OF_ANOTHER_CONTENT):
        return "another process"


def holder_of(path: Path) -> str | None:
    """Who holds the lock; None if nobody does. Writes nothing, so that anybody may ask."""
    if not path.exists():
        return None
    note = note_of(path)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return noted(note)
    except OSError:  # somebody else's folder: the note is all there is
        return noted(note) if note.is_file() else None
    lock.release()
    return None
