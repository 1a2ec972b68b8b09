"""Child processes: their progress is parsed, failures are reported, and none survives us."""

import io
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from semi_nnunet.runs import commands
from semi_nnunet.runs.commands import (
    ProgressDisplay,
    build_child_arguments,
    parse_dice,
    run_command,
)
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.progress import Progress
from tests.runs.tasks import run_code_as_commands

EPOCH_LINE = "2026-11-20 10:00:00.306897: 7 of 22 epochs done, about 2 min left \n"
DICE_LINE = "2026-11-20 10:00:00.3: Pseudo dice [np.float32(0.75), np.float32(0.25), 0.5] \n"


class Screen(io.StringIO):
    def __init__(self, terminal: bool):
        super().__init__()
        self.isatty = lambda: terminal


def epoch(done: int, of: int) -> str:
    return f"1: {Progress(done, of, 'epoch', '5 s')}"


@pytest.fixture
def python(monkeypatch: pytest.MonkeyPatch) -> None:
    """``run_command(("python", code), ...)`` runs the code."""
    run_code_as_commands(monkeypatch)


def test_our_epoch_line_is_understood():
    assert Progress.parse(EPOCH_LINE) == Progress(7, 22, "epoch", "2 min")
    assert Progress.parse(DICE_LINE) is None


def test_the_dice_is_the_mean_of_the_organs_that_occur():
    assert parse_dice(DICE_LINE) == pytest.approx(0.5)
    assert parse_dice("Pseudo dice [np.float64(nan), np.float64(0.4)]") == pytest.approx(0.4)
    assert parse_dice("Pseudo dice [np.float32(9e-05), np.float32(0.0)]") == pytest.approx(4.5e-5)
    assert parse_dice("Pseudo dice [nan]") is None
    assert parse_dice(EPOCH_LINE) is None


def test_a_log_file_gets_a_line_for_every_tenth_of_the_training():
    screen = Screen(terminal=False)
    progress = ProgressDisplay(screen)
    for done in range(1, 41):
        progress.feed(epoch(done, 40))
        progress.feed(DICE_LINE)
        progress.tick()
    progress.finish()
    lines = screen.getvalue().splitlines()
    assert len(lines) == 10
    assert lines[0].strip() == "epoch 4 of 40, Dice of patches 0.50, about 5 s left"
    assert lines[-1].strip() == "epoch 40 of 40, Dice of patches 0.50"
    assert "\r" not in screen.getvalue()


def test_a_terminal_gets_one_line_that_is_rewritten():
    screen = Screen(terminal=True)
    progress = ProgressDisplay(screen)
    progress.feed(epoch(3, 40))
    progress.feed(DICE_LINE)
    progress.tick()
    progress.finish()
    assert "\n" not in screen.getvalue()
    assert "epoch 3 of 40, Dice of patches 0.50, about 5 s left" in screen.getvalue()
    assert not screen.getvalue().split("\r")[-2].strip()  # wiped at the end


def test_a_training_of_nnunets_own_trainer_tells_its_epochs():
    progress = ProgressDisplay(Screen(terminal=False))
    assert progress.state == "for 0 s"
    for number, seconds in ((500, 30.0), (501, 50.0)):  # continued
        progress.feed(f"2026-01-01 10:00:00.1: Epoch {number} ")
        progress.feed(f"2026-01-01 10:00:00.1: Epoch time: {seconds} s ")
    assert progress.state == "502 epochs done, 40 s each, for 0 s"
    progress.feed(epoch(3, 40))  # of our trainers, which print the number of epochs
    assert progress.state == "epoch 3 of 40, about 5 s left"


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
    class Interrupting(ProgressDisplay):
        def feed(self, line: str) -> None:
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
