"""A process ends together with its parent, however the parent ended."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from semi_nnunet.runs import commands
from tests.runs.tiny import wait_for

STARTS = f"""
import sys
from pathlib import Path
from semi_nnunet.runs import commands
commands.ENTRY_POINTS["sleep"] = ("time", "sleep")
arguments = commands.{commands.build_child_arguments.__name__}
def sleeping(words, *rest, **options):
    executable, c, code = arguments(words, *rest, **options)
    return [executable, c, code.rpartition("from")[0] + sys.argv[2]]
commands.{commands.build_child_arguments.__name__} = sleeping
if sys.argv[3] == "verb":
    commands.run_verb(("sleep",))
else:
    commands.run_command(("sleep",), {{}}, Path(sys.argv[1]))
"""
SLEEPS = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"


@pytest.mark.parametrize("kind", ["command", "verb"])
def test_a_command_ends_with_a_killed_parent(tmp_path, kind):
    log = tmp_path / "log"
    with (tmp_path / ("log" if kind == "verb" else "screen")).open("w") as screen:
        words = [sys.executable, "-c", STARTS, str(log), SLEEPS, kind]
        parent = subprocess.Popen(words, stdout=screen)
    wait_for(lambda: log.is_file() and log.read_text().endswith("\n"))
    child = Path("/proc") / log.read_text().strip()
    assert child.is_dir()
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_for(lambda: not child.is_dir() or "State:\tZ" in (child / "status").read_text(), 10)


TETHERED = """
import signal, subprocess, sys, time
from semi_nnunet.runs.tether import end_with_parent
if sys.argv[1] == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
end_with_parent(0.2)
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(
    ("behaviour", "ended_by"), [("polite", "SIGTERM"), ("stubborn", "SIGKILL")]
)
def test_a_group_ends_when_the_pipe_of_its_parent_closes(behaviour, ended_by):
    command = [sys.executable, "-c", TETHERED, behaviour]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        child = Path("/proc") / process.stdout.readline().decode().strip()
        assert child.is_dir() and process.poll() is None
        process.stdin.close()
        assert process.wait(30) == -getattr(signal, ended_by)
        wait_for(lambda: not child.is_dir() or "State:\tZ" in (child / "status").read_text(), 10)
    finally:
        process.kill()
        process.stdout.close()
