"""Ctrl-C, as a terminal sends it: to a whole process group."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path


def in_a_group(
    command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a command in a process group of its own, where Ctrl-C is not ignored."""
    with log.open("wb") as file:
        return subprocess.Popen(
            command, stdout=file, stderr=file, env={**os.environ, **(environment or {})},
            start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip


def press_ctrl_c_twice(process: subprocess.Popen[bytes], pause_s: float) -> None:
    """The second time while the first is being dealt with, if that is not done before."""
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(pause_s)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
