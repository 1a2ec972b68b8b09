"""Run commands as child processes, with their output in a log file."""

from __future__ import annotations

import logging
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from semi_nnunet.runs.display import CommandProgress
from semi_nnunet.util.command import Command, typed
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.signals import handled

logger = logging.getLogger(__name__)

INTERRUPTED = (128 + signal.SIGINT, -signal.SIGINT, -signal.SIGTERM)  # exit codes
LAST_LINES = 15
PATIENCE_S = 30.0  # between asking a child to end and killing it: a training saves after its step
PATIENCE_WITH_VERBS_S = 2 * PATIENCE_S  # our verbs end children of their own first

# What the console scripts call. The scripts may lie anywhere, but this Python has the modules.
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


class CommandCancelled(Exception):
    """A command was ended on request."""


def build_child_arguments(
    words: Command, threads: int | None = None, ends_with_us: bool = False
) -> list[str]:
    """Return the arguments of :class:`subprocess.Popen` that run a command with this Python.

    Args:
        words: the command line, beginning with a name in ``ENTRY_POINTS``.
        threads: number of cores that nnU-Net shall count; it would use all of the machine's for one
            training on the CPU. None leaves the count.
        ends_with_us: the command's stdin is a pipe; when it closes, the command ends with all of
            its children.
    """
    module, function = ENTRY_POINTS[str(words[0])]
    code = f"import sys; sys.argv[0] = {str(words[0])!r}; "
    if ends_with_us:
        code += "from semi_nnunet.runs.tether import end_with_parent; "
        code += f"end_with_parent({get_patience_s(words)}); "
    if threads is not None:
        code += f"import multiprocessing; multiprocessing.cpu_count = lambda: {threads}; "
    code += f"from {module} import {function} as run; sys.exit(run())"
    return [sys.executable, "-c", code, *map(str, words[1:])]


def run_command(
    words: Command,
    environment: Mapping[str, str],
    log: Path,
    progress: CommandProgress | None = None,
    threads: int | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Run a command to its end and append its output to ``log``, as far as the disk allows.

    Args:
        words: the command line, beginning with a name in ``ENTRY_POINTS``.
        environment: variables to add.
        log: file for the output.
        progress: parses the output, and may show it; finished at the end.
        threads: see :func:`build_child_arguments`.
        stop: ends the command when set.

    Raises:
        UserError: the command failed; the message has its last lines and the log's path.
        CommandCancelled: ``stop`` was set.
    """
    progress = progress or CommandProgress()
    log.parent.mkdir(parents=True, exist_ok=True)
    last: deque[str] = deque(maxlen=LAST_LINES)
    try:
        with (
            log.open("ab", buffering=0) as file,
            _start_child(
                words,
                threads,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "100", **environment},
                text=True,
                encoding="utf-8",
                errors="replace",
            ) as process,
        ):
            for line in _read_lines(process):
                if stop is not None and stop.is_set():
                    raise CommandCancelled
                if line is None:
                    progress.tick()
                    continue
                with suppress(OSError):  # a full disk must not stop the command
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
            f"{get_command_name(words)} failed (exit code {code}). Its last lines:\n{shown}\n"
            f"The command was: {typed(words)}\nIts whole output is in {log}"
        )


def run_stages(stages: Iterable[tuple[str, Command]], dry_run: bool = False) -> None:
    """Run commands one after another, each printed as a user would type it.

    Args:
        stages: pairs of name and command; each is requested when the previous one has ended.
        dry_run: print the commands, without their names, and run none.

    Raises:
        UserError: a command failed.
        KeyboardInterrupt: a command was interrupted, although this process was not.
    """
    for stage, words in stages:
        if dry_run:
            logger.info(typed(words))
            continue
        logger.info(f"\n# {stage}\n{typed(words)}")
        with interrupt_on_signals():
            code = run_verb(words)
        if code in INTERRUPTED:
            raise KeyboardInterrupt
        if code:
            raise UserError(
                f"{stage} failed, see above",
                fix="fix the error and run the same command again; finished stages are skipped",
            )


def run_verb(words: Command) -> int:
    """Run a command on the same screen, as if a user typed it, and return its exit code.

    It also ends if this process is killed, as in :func:`run_command`.
    """
    with _start_child(words) as process:
        return process.wait()


@contextmanager
def _start_child(
    words: Command, threads: int | None = None, **options: Any
) -> Iterator[subprocess.Popen[Any]]:
    """Start a command that ends, with all of its children, when the block ends.

    It also ends if this process is killed: its stdin is a pipe that the system then closes.

    Args:
        words: the command line.
        threads: see :func:`build_child_arguments`.
        options: more of :class:`subprocess.Popen`, for the output.
    """
    process = subprocess.Popen(
        build_child_arguments(words, threads, ends_with_us=True),
        stdin=subprocess.PIPE,
        start_new_session=True,  # a group of its own, so that its workers end with it
        **options,
    )
    try:
        yield process
    finally:
        _end_group(process, get_patience_s(words))
        if process.stdin:
            process.stdin.close()


def get_command_name(words: Command) -> str:
    """Return the program of a command, with the verb if it is semi_nnunet.

    >>> get_command_name(("semi_nnunet", "plan", "-d", "42"))
    'semi_nnunet plan'
    """
    return " ".join(map(str, words[: 2 if words[0] == "semi_nnunet" else 1]))


def get_patience_s(words: Command) -> float:
    """Return the seconds that a command may take to end when asked to."""
    return PATIENCE_WITH_VERBS_S if words[0] == "semi_nnunet" else PATIENCE_S


def _end_group(process: subprocess.Popen[Any], patience_s: float) -> None:
    """Ask a child's process group to end, then kill it."""
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


def _read_lines(process: subprocess.Popen[str]) -> Iterator[str | None]:
    """Yield the child's lines, and None after half a second of silence, to update the screen."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        if process.stdout is not None:
            with process.stdout as stream:  # closed by its reader: elsewhere, closing would block
                for line in stream:
                    lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=0.5)
        except queue.Empty:
            if process.poll() is not None:  # an orphaned worker may hold the pipe open
                return
            yield None
            continue
        if line is None:
            return
        yield line


@contextmanager
def interrupt_on_signals() -> Iterator[None]:
    """Treat SIGTERM and a closed terminal like Ctrl-C inside the block."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with handled(("SIGTERM", "SIGHUP"), interrupt, only_by_default=True):  # nohup ignores SIGHUP
        yield
