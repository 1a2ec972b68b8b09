"""How much memory a process may have, of the machine or its control group, and how much it had."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from semi_nnunet.util.errors import UserError

GROUPS, OF_THIS_PROCESS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
STATUS, DATA = Path("/proc/self/status"), "VmData:"  # in kB: what a process may write to, privately
GIB, MOST = 2**30, 2**62  # bytes; the latter is more than any machine has


def memory_bytes(groups: Path = GROUPS, of_this_process: Path = OF_THIS_PROCESS) -> int | None:
    """The most memory that this process can ever have, whatever others use of it now.

    A container or a job of a cluster has less than its machine: the least limit of its control
    group and of those around it counts, in version 1 and 2 of Linux' control groups.

    Args:
        groups: where the control groups are mounted.
        of_this_process: the file that lists those of this process.

    Returns:
        bytes; None where the system does not tell.
    """
    limits = [*machine_memory(), *group_limits(groups, of_this_process)]
    return min(limits, default=None)


def machine_memory() -> Iterator[int]:
    """The memory of the machine, if the system tells."""
    with suppress(OSError, ValueError, AttributeError):
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def group_limits(groups: Path, of_this_process: Path) -> Iterator[int]:
    """The limits of the control groups of this process and of all around them."""
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
            for around in (group, *group.parents):
                yield from limit_in(root / around / file)


def limit_in(file: Path) -> Iterator[int]:
    """The number in a file, if it is there and holds one: "max" means no limit."""
    with suppress(OSError, ValueError):
        yield int(file.read_text(encoding="utf-8"))


def peak_memory_bytes() -> int | None:
    """The most memory that this process has had since it started, without that of its children.

    Returns:
        bytes; None where the system does not tell.
    """
    with suppress(ImportError):
        import resource  # not on Windows

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return None


def data_bytes() -> int | None:
    """The memory that this process has asked for to write to, used or not yet; None: not told."""
    with suppress(OSError, ValueError):
        lines = STATUS.read_text(encoding="utf-8").splitlines()
        (kilobytes,) = (line.split()[1] for line in lines if line.startswith(DATA))
        return int(kilobytes) * 1024
    return None


@contextmanager
def at_most(limit: float | None) -> Iterator[None]:
    """Inside the block, what would take more memory fails, as on a machine that has no more.

    The system counts what the process has asked for, which is a little more than what it uses, and
    without memory of GPUs and of child processes.

    Args:
        limit: in GiB; None: no limit.

    Raises:
        UserError: the process has more already, or the system knows no such limit.
    """
    if limit is None:
        yield
        return
    there = data_bytes()
    if there is None:
        raise UserError(
            "a limit of the memory needs Linux, which counts it",
            fix="leave it out here, or set one for the container",
        )
    import resource

    if not there < limit * GIB < MOST:
        raise UserError(
            f"the limit of the memory must be above the {there / GIB:.1f} GiB that the program "
            f"has already taken, got {limit:g} GiB",
            fix="raise it",
        )
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (int(limit * GIB), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
