"""The processor of this machine, and the cores and processes on it."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")


def processor_name(cpu_info: Path = CPU_INFO) -> str:
    """Return the model of the processor, or the architecture where the system hides the model.

    The name, such as "AMD EPYC 7763 64-Core Processor", identifies no computer or person.

    Args:
        cpu_info: Linux's description of the processors.
    """
    with suppress(OSError, UnicodeDecodeError):
        for line in cpu_info.read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return " ".join(value.split())
    return platform.processor() or platform.machine() or "unknown processor"


def usable_cores() -> int:
    """Return the number of cores this process may use; a cluster's job has fewer than its node."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let PyTorch compute with ``count`` threads of the CPU inside the block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def is_process_running(number: str) -> bool:
    """Return whether a process of this host has this number.

    >>> is_process_running(str(os.getpid())), is_process_running("not a number")
    (True, False)
    """
    import psutil

    try:
        return psutil.pid_exists(int(number))  # os.kill(number, 0) interrupts it on Windows
    except (ValueError, OverflowError):
        return False
