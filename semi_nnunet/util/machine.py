"""What a machine is called, and how many cores of it a process may use."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")


def processor_name(cpu_info: Path = CPU_INFO) -> str:
    """Such as "AMD EPYC 7763 64-Core Processor"; the architecture where the system does not tell.

    It is no name of a computer or of its owner.

    Args:
        cpu_info: Linux' file about the processors.
    """
    with suppress(OSError, UnicodeDecodeError):
        for line in cpu_info.read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return " ".join(value.split())
    return platform.processor() or platform.machine() or "unknown processor"


def usable_cores() -> int:
    """The processor cores that this process may use: fewer than there are, in a cluster's job."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def is_running(process: str) -> bool:
    """Whether this is the number of a process of this host that has not ended."""
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except OSError:  # somebody else's
        return True
    return True
