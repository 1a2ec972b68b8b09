"""Work in processes has the same results, in order, and a killed process is reported."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from semi_nnunet.util.errors import UserError
from semi_nnunet.util.parallel import in_processes


@pytest.mark.parametrize("processes", [0, 1, 2])
def test_results_come_in_the_order_of_the_jobs(processes: int) -> None:
    jobs = list(range(7, 0, -1))
    assert list(in_processes(abs, jobs, processes, "counts")) == jobs


def test_a_killed_process_is_reported() -> None:
    with pytest.raises(UserError, match="a process that counts was killed"):
        list(in_processes(os._exit, [1, 1, 1], 2, "counts"))


ORPHANS = """
import time
from semi_nnunet.util.parallel import in_processes
if __name__ == "__main__":
    print("begins", flush=True)
    list(in_processes(time.sleep, [300, 300], 2, "sleeps"))
"""


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM])
def test_processes_end_with_their_parent(kill: int, tmp_path: Path) -> None:
    (script := tmp_path / "orphans.py").write_text(ORPHANS)
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE)
    assert parent.stdout is not None and parent.stdout.readline()

    def workers() -> list[psutil.Process]:
        children = psutil.Process(parent.pid).children(recursive=True)
        return [child for child in children if "spawn_main" in " ".join(child.cmdline())]

    started = time.monotonic()
    while len(running := workers()) < 2 or any(p.num_threads() < 2 for p in running):
        assert time.monotonic() - started < 120
        time.sleep(0.1)
    parent.send_signal(kill)
    parent.wait(60)
    _, alive = psutil.wait_procs(running, timeout=60)
    for process in alive:
        process.kill()
    assert not alive
