"""Child processes: failures are reported, and none survives us."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from semi_nnunet.runs import commands
from semi_nnunet.runs.commands import build_child_arguments, run_command
from semi_nnunet.runs.display import CommandProgress
from semi_nnunet.util.errors import UserError
from tests.runs.tasks import run_code_as_commands


@pytest.fixture
def python(monkeypatch: pytest.MonkeyPatch) -> None:
    """``run_command(("python", code), ...)`` runs the code."""
    run_code_as_commands(monkeypatch)


@pytest.mark.parametrize("name", commands.ENTRY_POINTS)
def test_every_command_has_an_entry_point(name: str):
    module, function = commands.ENTRY_POINTS[name]
    assert callable(getattr(__import__(module, fromlist=[function]), function))
    assert build_child_arguments((name, "-d", "900"))[-2:] == ["-d", "900"]


def test_output_goes_to_the_log_with_the_given_environment(tmp_path: Path, python: None):
    code = "import os; print('hello', os.environ['GREETED'])"
    run_command(("python", code), {"GREETED": "world"}, tmp_path / "a.log")
    assert (tmp_path / "a.log").read_text() == "hello world\n"


def test_a_failure_is_reported_with_its_last_lines_and_its_log(tmp_path: Path, python: None):
    code = "for i in range(100): print('line', i)\nraise SystemExit(3)"
    with pytest.raises(UserError, match=r"exit code 3") as failure:
        run_command(("python", code), {}, tmp_path / "a.log")
    message = str(failure.value)
    assert str(tmp_path / "a.log") in message
    assert "line 85\n" in message and "line 99" in message and "line 84\n" not in message


def test_a_log_that_the_disk_does_not_take_costs_nothing(tmp_path: Path, python: None):
    if not Path("/dev/full").is_char_device():
        pytest.skip("there is no device that is always full")
    (tmp_path / "a.log").symlink_to("/dev/full")
    run_command(("python", "print('a')"), {}, tmp_path / "a.log")
    with pytest.raises(UserError, match="No space left for the rest"):
        code = "raise SystemExit('No space left for the rest')"
        run_command(("python", code), {}, tmp_path / "a.log")


def test_interruption_ends_the_child_and_its_workers(tmp_path: Path, python: None):
    class Interrupting(CommandProgress):
        def feed(self, line: str) -> bool:
            raise KeyboardInterrupt

    code = (
        "import subprocess, sys, time\n"
        "sleep = [sys.executable, '-c', 'import time; time.sleep(99)']\n"
        "print(subprocess.Popen(sleep).pid, flush=True); time.sleep(99)"
    )
    with pytest.raises(KeyboardInterrupt):
        run_command(("python", code), {}, tmp_path / "a.log", Interrupting())
    worker = int((tmp_path / "a.log").read_text())
    assert gone(worker)


def gone(pid: int) -> bool:
    """Return whether a process has ended; zombies count."""
    for _ in range(50):
        try:
            os.kill(pid, 0)
            if (
                Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0]
                == "Z"
            ):
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize(("name", "ignored"), [("SIGTERM", False), ("SIGHUP", True)])
def test_a_termination_signal_counts_as_ctrl_c(name: str, ignored: bool):
    """In a process of its own: libraries of other tests leave handlers; a signal ends us all."""
    code = (
        "import os, signal\n"
        "from semi_nnunet.runs import commands\n"
        f"number, before = signal.{name}, signal.{'SIG_IGN' if ignored else 'SIG_DFL'}\n"
        "signal.signal(number, before)\n"
        "try:\n"
        f"    with commands.{commands.interrupt_on_signals.__name__}():\n"
        "        os.kill(os.getpid(), number)\n"
        "        print('went on')\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
        "print(signal.getsignal(number) == before)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split("\n")[:2] == ["went on" if ignored else "interrupted", "True"]


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_stage_that_was_interrupted_by_itself_is_no_failure(name, monkeypatch, capfd):
    """An interruption of the child counts as one of the command, not as a failure."""
    code = "import os, signal, time\n"
    code += "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # nohup ignores it
    code += f"os.kill(os.getpid(), signal.{name}); time.sleep(9)"
    run_code_as_commands(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        commands.run_stages([("1 of 2: plan", ["python", code])])
    with pytest.raises(UserError, match="1 of 2: plan failed"):
        commands.run_stages([("1 of 2: plan", ["python", "exit(2)"])])
