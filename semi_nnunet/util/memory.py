"""Limits of a process's memory, by the machine or its control group, and the memory it uses."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from semi_nnunet.util.errors import UserError

GROUPS, OF_THIS_PROCESS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
STATUS, DATA = Path("/proc/self/status"), "VmData:"  # in kB: private memory that can be written
GIB, MAX_BYTES = 2**30, 2**62  # no machine has as many as the latter


def memory_bytes(groups: Path = GROUPS, of_this_process: Path = OF_THIS_PROCESS) -> int | None:
    """Return the memory that this process can have if no other process used any.

    A container or a cluster's job has less than its machine: the smallest limit of its control
    group and the enclosing ones counts, in version 1 and 2 of Linux's control groups.

    Args:
        groups: where the control groups are mounted.
        of_this_process: the file that lists the groups of this process.

    Returns:
        Bytes, or ``None`` where the system does not report them.
    """
    limits = [*machine_memory(), *_find_group_limits(groups, of_this_process)]
    return min(limits, default=None)


def machine_memory() -> Iterator[int]:
    """Yield the memory of the machine in bytes, if the system reports it."""
    with suppress(OSError, ValueError, AttributeError):
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _find_group_limits(groups: Path, of_this_process: Path) -> Iterator[int]:
    """Yield the limits of the control groups of this process and of all enclosing groups."""
    with suppress(OSError, ValueError):
        for line in of_this_process.read_text(encoding="utf-8").splitlines():
            _, controllers, name = line.split(":", 2)
            if controllers == "":  # version 2
                root, file = groups, "memory.max"
            elif "memory" in controllers.split(","):
                root, file = groups / "memory", "memory.limit_in_bytes"
            else:
                continue
            group = Path(name.lstrip("/"))
            for enclosing in (group, *group.parents):
                with suppress(OSError, ValueError):  # "max" means no limit
                    yield int((root / enclosing / file).read_text(encoding="utf-8"))


def peak_memory_bytes() -> int | None:
    """Return the peak memory of this process since its start, without its children.

    Returns:
        Bytes, or ``None`` where the system does not report them.
    """
    with suppress(ImportError):
        import resource  # not on Windows

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return None


def data_bytes() -> int | None:
    """Return the writable memory that this process has requested, used or not, if reported."""
    with suppress(OSError, ValueError):
        lines = STATUS.read_text(encoding="utf-8").splitlines()
        (kilobytes,) = (line.split()[1] for line in lines if line.startswith(DATA))
        return int(kilobytes) * 1024
    return None


@contextmanager
def at_most(limit: float | None) -> Iterator[None]:
    """Limit the memory of this process inside the block: larger allocations fail.

    The system counts requested memory, a little more than the used one, without the memory of GPUs
    and of child processes.

    Args:
        limit: in GiB, or ``None`` for no limit.

    Raises:
        UserError: the process already has more, or the system cannot limit it.
    """
    if limit is None:
        yield
        return
    used = data_bytes()
    if used is None or sys.platform == "win32":
        raise UserError(
            "a memory limit needs Linux, which counts the memory",
            fix="leave it out, or set one for the container",
        )
    import resource

    if not used < limit * GIB < MAX_BYTES:
        raise UserError(
            f"the memory limit must be above the {used / GIB:.1f} GiB that the program already "
            f"uses, got {limit:g} GiB",
            fix="raise it",
        )
    previous = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (int(limit * GIB), previous[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, previous)
