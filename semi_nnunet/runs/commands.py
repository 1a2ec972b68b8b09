"""Run the commands a user would type, as child processes with progress on the screen and a log."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from semi_nnunet.util.command import Command, typed
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.progress import Progress, readable_time
from semi_nnunet.util.signals import handled

INTERRUPTED = (128 + signal.SIGINT, -signal.SIGINT, -signal.SIGTERM)  # codes of an ended verb
LAST_LINES = 15
LOG_STEP = 0.1  # in a log file, a line for every tenth of the training
PATIENCE_S = 30.0  # between asking a child to end and killing it: a training saves after its step
PATIENCE_WITH_VERBS_S = 30.0  # they end children of their own first

# What the console scripts call. Scripts may lie anywhere; the Python that runs us has the modules.
ENTRY_POINTS = {
    "semi_nnunet": ("semi_nnunet.cli.main", "main"),
    "nnUNetv2_train": ("nnunetv2.run.run_training", "run_training_entry"),
    "nnUNetv2_predict": ("nnunetv2.inference.predict_from_raw_data", "predict_entry_point"),
    "nnUNetv2_predict_from_modelfolder": (
        "nnunetv2.inference.predict_from_raw_data",
        "predict_entry_point_modelfolder",
    ),
    "nnUNetv2_evaluate_folder": (
        "nnunetv2.evaluation.evaluate_predictions",
        "evaluate_folder_entry_point",
    ),
}

PSEUDO_DICE = re.compile(r"\bPseudo dice \[(.*)\]")
EPOCH = re.compile(r"\bEpoch (?:(\d+)\s*$|time: (\d+(?:\.\d+)?) s)")  # nnU-Net's lines
NUMBER = re.compile(r"(?<![\w.])(?:nan|\d+\.?\d*(?:e-?\d+)?)(?![\w.])")  # not the 64 of np.float64


def parse_dice(line: str) -> float | None:
    """The mean of the organs' Dice in nnU-Net's line of an epoch, None in any other line."""
    found = PSEUDO_DICE.search(line)
    values = [float(number) for number in NUMBER.findall(found[1])] if found else []
    known = [value for value in values if value == value]
    return sum(known) / len(known) if known else None


class EpochTimes:
    """Seconds of each epoch, as nnU-Net prints them; one that is trained again counts once."""

    def __init__(self) -> None:
        self.seconds: dict[int, float] = {}
        self._epoch = 0

    def feed(self, line: str) -> None:
        """Take in one line of a training's output."""
        if found := EPOCH.search(line):
            number, seconds = found.groups()
            if seconds:
                self.seconds[self._epoch] = float(seconds)
            else:  # those after it are of a training before
                self._epoch = int(number)
                self.seconds = {n: s for n, s in self.seconds.items() if n < self._epoch}

    def __str__(self) -> str:
        """Say how many epochs are done and how long each took lately; "" before the first."""
        if not self.seconds:
            return ""
        recent = list(self.seconds.values())[-10:]
        mean = readable_time(sum(recent) / len(recent))
        return f"{max(self.seconds) + 1} epochs done, {mean} each"


class Cancelled(Exception):
    """A command was ended because somebody asked for it."""


class ProgressDisplay:
    """One stage on the screen: a live line on a terminal, now and then a line elsewhere.

    A training shows epoch, Dice and time left; one of nnU-Net's own trainers, which does not say
    how many epochs it has, the time of each; a labelling cases and time left; other commands the
    time that has passed.
    """

    def __init__(self, screen: TextIO | None = None):
        self.screen = screen or sys.stdout
        self.live = self.screen.isatty()
        self.started = time.monotonic()
        self._progress: Progress | None = None
        self._dice: float | None = None  # mean over the organs
        self._epochs = EpochTimes()
        self._shown = 0.0
        self._width = 0

    def feed(self, line: str) -> None:
        """Take in one line of a child's output."""
        progress, dice = Progress.parse(line), parse_dice(line)
        self._epochs.feed(line)
        if progress is not None:
            self._progress = progress
            if progress.unit == "case":
                self._show(progress)
        if dice is not None and self._progress is not None:  # nnU-Net prints it after our line
            self._dice = dice
            self._show(self._progress)

    @property
    def state(self) -> str:
        """Epochs or cases and the time left where they are known, else the time that has passed."""
        if self._progress is not None:
            return self._described(self._progress)
        passed = f"for {readable_time(time.monotonic() - self.started)}"
        return f"{self._epochs}, {passed}" if self._epochs.seconds else passed

    def _described(self, progress: Progress) -> str:
        """Such as "epoch 3 of 10, Dice of patches 0.64, about 5 min left"."""
        dice = "" if self._dice is None else f", Dice of patches {self._dice:.2f}"
        left = "" if progress.done == progress.total else f", about {progress.left} left"
        return f"{progress.unit} {progress.done} of {progress.total}{dice}{left}"

    def tick(self) -> None:
        """Called a few times a second: keeps the live line alive."""
        if self.live:
            passed = f"{time.monotonic() - self.started:4.0f} s"
            known = self._described(self._progress) if self._progress else self._epochs
            self._rewrite(f"      {passed}   {known}")

    def finish(self) -> None:
        """Remove the live line."""
        if self.live:
            self._rewrite("")
            self.screen.write("\r")
            self.screen.flush()

    def _show(self, progress: Progress) -> None:
        share = progress.done / progress.total
        if self.live or not (share >= self._shown + LOG_STEP - 1e-9 or share == 1):
            return
        self._shown = share
        print(f"      {self._described(progress)}", file=self.screen, flush=True)

    def _rewrite(self, text: str) -> None:
        self.screen.write("\r" + text.ljust(self._width))
        self.screen.flush()
        self._width = len(text)


def arguments_of(
    words: Command, threads: int | None = None, ends_with_us: bool = False
) -> list[str]:
    """The same command for :class:`subprocess.Popen`, run by this very Python.

    Args:
        words: the command line, beginning with a name in ``ENTRY_POINTS``.
        threads: what nnU-Net is to find when it counts the cores, all of which it would take for
            one training on the CPU; None leaves it.
        ends_with_us: its stdin is a pipe; when that closes, it ends with all that it started.
    """
    module, function = ENTRY_POINTS[str(words[0])]
    code = f"import sys; sys.argv[0] = {str(words[0])!r}; "
    if ends_with_us:
        code += "from semi_nnunet.runs.tether import end_with_parent; "
        code += f"end_with_parent({patience_with(words)}); "
    if threads is not None:
        code += f"import multiprocessing; multiprocessing.cpu_count = lambda: {threads}; "
    code += f"from {module} import {function} as run; sys.exit(run())"
    return [sys.executable, "-c", code, *map(str, words[1:])]


def run_command(
    words: Command,
    environment: Mapping[str, str],
    log: Path,
    progress: ProgressDisplay | None = None,
    threads: int | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Run a command to its end; its output is appended to ``log`` as far as the disk takes it.

    Args:
        words: the command line, beginning with a name in ``ENTRY_POINTS``.
        environment: variables added to ours.
        progress: what to show; closed at the end.
        threads: as in :func:`arguments_of`.
        stop: end the command when this is set.

    Raises:
        UserError: the command failed; the message has its last lines and the log's path.
        Cancelled: ``stop`` was set.
    """
    progress = progress or ProgressDisplay()
    log.parent.mkdir(parents=True, exist_ok=True)
    last: deque[str] = deque(maxlen=LAST_LINES)
    try:
        with (
            log.open("ab", buffering=0) as file,
            _child(words, environment, threads) as process,
        ):
            for line in _lines(process):
                if stop is not None and stop.is_set():
                    raise Cancelled
                if line is None:
                    progress.tick()
                    continue
                with suppress(OSError):  # a full disk must not cost the command
                    file.write(line.encode())
                if line.strip():
                    last.append(line.rstrip()[:300])
                progress.feed(line)
            code = process.wait()
    finally:
        progress.finish()
    if code:
        shown = "\n".join(f"    {line}" for line in last)
        raise UserError(
            f"{name_of(words)} failed (exit code {code}). Its last lines:\n{shown}\n"
            f"The command was: {typed(words)}\nIts whole output is in {log}"
        )


def run_stages(stages: Iterable[tuple[str, Command]], dry_run: bool = False) -> None:
    """Run commands one after another, each printed as it could be typed.

    Args:
        stages: name -> command; each is asked for when the one before has ended.
        dry_run: print them, without their names, and run none.

    Raises:
        UserError: one failed.
        KeyboardInterrupt: one was interrupted, although we were not: nothing is to be mended.
    """
    for stage, words in stages:
        if dry_run:
            print(typed(words))
            continue
        print(f"\n# {stage}\n{typed(words)}", flush=True)
        with ended_like_ctrl_c():
            code = run_verb(words)
        if code in INTERRUPTED:
            raise KeyboardInterrupt
        if code:
            raise UserError(
                f"{stage} failed, see above",
                fix="mend what it names and run the same command again; what is done is skipped",
            )


def run_verb(words: Command) -> int:
    """Run a command as if it were typed, on the same screen; returns its exit code."""
    process = subprocess.Popen(arguments_of(words), start_new_session=True)
    try:
        return process.wait()
    finally:
        _end(process, patience_with(words))


@contextmanager
def _child(
    words: Command, environment: Mapping[str, str], threads: int | None
) -> Iterator[subprocess.Popen[str]]:
    """A started command; whatever ends the block also ends the command and all that it started.

    Also SIGKILL: its stdin is a pipe that the system then closes.
    """
    process = subprocess.Popen(
        arguments_of(words, threads, ends_with_us=True),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "100", **environment},
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,  # a group of its own, so that its workers end with it
    )
    try:
        yield process
    finally:
        _end(process, patience_with(words))
        if process.stdin:
            process.stdin.close()


def name_of(words: Command) -> str:
    """A command's name, with the verb where it has one."""
    return " ".join(map(str, words[: 2 if words[0] == "semi_nnunet" else 1]))


def patience_with(words: Command) -> float:
    """Seconds a command may take to end when it is asked to."""
    return PATIENCE_WITH_VERBS_S if words[0] == "semi_nnunet" else PATIENCE_S


def _end(process: subprocess.Popen[Any], patience_s: float) -> None:
    """End a child's whole group: politely, then not."""
    _signal_group(process, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(patience_s)
    _signal_group(process, getattr(signal, "SIGKILL", signal.SIGTERM))
    process.wait()


def _signal_group(process: subprocess.Popen[Any], number: int) -> None:
    if hasattr(os, "killpg"):
        try:
            os.killpg(process.pid, number)
        except (ProcessLookupError, PermissionError):  # macOS: the group has only just ended
            return
    elif process.poll() is None:
        process.kill()


def _lines(process: subprocess.Popen[str]) -> Iterator[str | None]:
    """The child's lines; None whenever none came for a while, so that the screen stays alive."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        if process.stdout is not None:
            with process.stdout as stream:  # closed here: elsewhere, closing waits for a reader
                for line in stream:
                    lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=0.5)
        except queue.Empty:
            if process.poll() is not None:  # a worker left behind may hold the pipe open
                return
            yield None
            continue
        if line is None:
            return
        yield line


@contextmanager
def ended_like_ctrl_c() -> Iterator[None]:
    """Inside the block, SIGTERM and a closed terminal end us and our children as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with handled(("SIGTERM", "SIGHUP"), interrupt, only_by_default=True):  # nohup ignores it
        yield
