"""Work in processes has the same results, in order, and a killed process is reported."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import psutil
import pytest

from semi_nnunet.util.errors import UserError
from semi_nnunet.util.parallel import attempt_in_processes, in_processes


@pytest.mark.parametrize("processes", [0, 1, 2])
def test_results_come_in_the_order_of_the_jobs(processes: int) -> None:
    jobs = list(range(7, 0, -1))
    assert list(in_processes(abs, jobs, processes, "counts")) == jobs


def test_a_killed_process_is_reported() -> None:
    with pytest.raises(UserError, match="was killed"):
        list(in_processes(os._exit, [1, 1, 1], 2, "counts"))


@pytest.mark.parametrize("processes", [1, 2])
def test_every_attempt_yields_its_result_or_its_error(processes: int) -> None:
    results = dict(attempt_in_processes(int, ["1", "x", "3"], processes))
    assert (results["1"], results["3"]) == (1, 3) and isinstance(results["x"], ValueError)


def test_jobs_lost_with_a_killed_process_run_again(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("killed", "a", "b")]
    results = dict(attempt_in_processes(write_or_end, paths, 2))
    assert isinstance(results.pop(paths[0]), BrokenProcessPool)
    assert results == {path: path.name for path in paths[1:]}


def write_or_end(path: Path) -> str:
    """End the process if the file is named "killed"; otherwise write it."""
    if path.name == "killed":
        os._exit(1)
    path.touch()
    return path.name


UNGUARDED = """
from semi_nnunet.util.parallel import {function}
list({function}(abs, [1, 2], {arguments}))
"""


@pytest.mark.parametrize(
    ("function", "arguments"),
    [("in_processes", "2, 'counts'"), ("attempt_in_processes", "num_processes=2")],
)
def test_a_script_that_lacks_the_guard_of_new_processes_is_told(
    function: str, arguments: str, tmp_path: Path
) -> None:
    (script := tmp_path / "unguarded.py").write_text(
        UNGUARDED.format(function=function, arguments=arguments)
    )
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300)
    last = run.stderr.strip().splitlines()[-1]
    assert run.returncode and "__main__" in last and "UserError" in last


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
