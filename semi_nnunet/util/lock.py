"""One process works on a job at a time, on any of the hosts that share the results folder.

The file lock of the operating system decides, so that a killed process holds nothing. A note next
to it names the holder: process, host and time. On a file system without locks, such as some NFS
mounts, the note decides: it counts while its process lives, which another host cannot see.
"""

from __future__ import annotations

import atexit
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from semi_nnunet.util.files import write_json
from semi_nnunet.util.machine import is_process_running

PATIENCE_S = 0.5  # status holds a lock for a moment, to see whether another process does
UNREADABLE = (OSError, ValueError, KeyError, TypeError, RecursionError)  # absent or half written


@contextmanager
def held(
    path: Path, on_wait: Callable[[str], None] | None = None, from_dead: bool = False
) -> Iterator[str | None]:
    """Hold the lock during the block, or yield the name of the process that holds it.

    Args:
        path: of the lock; its folder is made.
        on_wait: called once with the name of the holder, who is then waited for; ``None``: the
            block runs at once, without the lock.
        from_dead: take the lock from a process that has ended but whose workers still hold it.

    Yields:
        The holder, or ``None`` if this process holds the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock, note, process = FileLock(path), note_of(path), os.getpid()
    holder = _find_obstacle(lock, note, from_dead)
    if holder and on_wait:
        on_wait(holder)
        while holder := _find_obstacle(lock, note, from_dead):
            pass  # each attempt takes PATIENCE_S
    if holder:
        yield holder
        return
    try:
        write_note(note)
        yield None
    finally:
        if os.getpid() == process:  # a forked worker must not release the lock
            note.unlink(missing_ok=True)
            lock.release()


def _find_obstacle(lock: FileLock, note: Path, from_dead: bool) -> str | None:
    """Try to take a lock; return who prevents it after ``PATIENCE_S``."""
    try:
        lock.acquire(timeout=PATIENCE_S)
        return None
    except Timeout:
        return None if from_dead and is_of_the_dead(note) else _read_holder(note)
    except (OSError, NotImplementedError):  # the file system has no locks
        if not note.is_file() or is_of_the_dead(note):
            return None
        time.sleep(PATIENCE_S)
        return _read_holder(note)


def hold_until_exit(path: Path) -> str | None:
    """Hold the lock until this process ends, however it ends; it may already hold the lock.

    Returns:
        The process that holds it instead, or ``None``.
    """
    if path in _HELD:
        return None
    stack = ExitStack()
    if holder := stack.enter_context(held(path, from_dead=True)):
        return holder
    _HELD[path] = stack
    atexit.register(stack.close)
    return None


_HELD: dict[Path, ExitStack] = {}  # locks of this process until its end


@contextmanager
def released_after() -> Iterator[None]:
    """Release after the block what :func:`hold_until_exit` took in it, as a notebook lives on."""
    before = {*_HELD}
    try:
        yield
    finally:
        for path in {*_HELD} - before:
            stack = _HELD.pop(path)
            atexit.unregister(stack.close)
            stack.close()


def note_of(path: Path) -> Path:
    """Return the path of the note next to a lock."""
    return path.with_name(path.name + ".json")


def write_note(note: Path) -> None:
    """Note that this process holds the lock."""
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    write_json(note, {"host": socket.gethostname(), "process": os.getpid(), "since": now})


def is_of_the_dead(note: Path) -> bool:
    """Return whether a note names an ended process of this host, or this very process."""
    try:
        holder = json.loads(note.read_text(encoding="utf-8"))
        if holder["host"] != socket.gethostname():
            return False
        process = int(holder["process"])
    except (OverflowError, *UNREADABLE):
        return False
    if not 0 < process < 2**31:  # no system has such a process
        return False
    return process == os.getpid() or not is_process_running(str(process))


def _read_holder(note: Path) -> str:
    """Return the process that a note names."""
    try:
        holder = json.loads(note.read_text(encoding="utf-8"))
        since = f" since {holder['since']}" if "since" in holder else ""
        return f"process {holder['process']} on {holder['host']}{since}"
    except UNREADABLE:
        return "another process"


def holder_of(path: Path) -> str | None:
    """Return the process that holds a lock, or ``None``; writes nothing, so anybody may ask."""
    if not path.exists():
        return None
    note = note_of(path)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return _read_holder(note)
    except OSError:  # a folder of another user: only the note can be read
        return _read_holder(note) if note.is_file() else None
    lock.release()
    return None
