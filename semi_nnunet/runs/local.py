"""Run jobs side by side on this machine: a GPU each, or the CPU's cores shared among them."""

from __future__ import annotations

import io
import os
import queue
import sys
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, TextIO

from semi_nnunet.discovery.register import trainer_folders
from semi_nnunet.runs.commands import Cancelled, ProgressDisplay, name_of, run_command
from semi_nnunet.util.command import Command
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.lock import held, holder_of
from semi_nnunet.util.progress import readable_time

LOOK_EVERY_S = 1.0
SAY_EVERY_S = 600.0  # in a log file, how far each running job is


class Runnable(Protocol):
    """Something to be done by commands; hashable, and printed as its name."""

    @property
    def log(self) -> Path:
        """The file that holds what the job's commands printed."""

    @property
    def lock(self) -> Path:
        """Held while somebody works on it."""

    @property
    def is_done(self) -> bool:
        """Whether the job has no command left."""

    def commands(self, device: str, processes: int) -> Iterator[Command]:
        """The commands that are left, each looked at when the one before has ended."""


@dataclass(frozen=True)
class Resources:
    """The devices, processes and threads that jobs may use.

    Args:
        device: cpu, cuda or mps.
        gpus: those of CUDA to use, one job on each at a time; () on another device.
        jobs: at a time.
        threads: of the CPU for each job.
    """

    device: str
    gpus: tuple[str, ...]
    jobs: int
    threads: int

    def __str__(self) -> str:
        if self.gpus:
            return f"GPU {', '.join(self.gpus)}"
        return f"{self.device}, {self.jobs} at a time with {self.threads} cores"

    def slots(self) -> list[dict[str, str]]:
        """The variables of each place where a job can run."""
        if self.gpus:
            places = [self.gpus[i % len(self.gpus)] for i in range(self.jobs)]
            return [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in places]
        return [{"OMP_NUM_THREADS": str(self.threads)} for _ in range(self.jobs)]


@dataclass
class Outcome:
    """How a job ended: "done", "done before", "failed" or "elsewhere", and why."""

    job: Runnable
    state: str
    reason: str = ""


class Board:
    """The screen of running jobs: a live line for each on a terminal, changes alone elsewhere."""

    def __init__(self, total: int, screen: TextIO | None = None):
        self.total, self.finished = total, 0
        self.screen = screen or sys.stdout
        self.live = self.screen.isatty()
        self._running: dict[Runnable, tuple[str, ProgressDisplay]] = {}
        self._lines = 0
        self._said = time.monotonic()
        self._writing = threading.Lock()

    def say(self, text: str) -> None:
        """Print a line that stays."""
        with self._writing:
            self._clear()
            print(text, file=self.screen, flush=True)
            self._draw()

    def start(self, job: Runnable, what: str) -> ProgressDisplay:
        """A command of the job has begun."""
        progress = ProgressDisplay(io.StringIO())  # the board shows the progress of all
        self._running[job] = (what, progress)
        if not self.live:
            self.say(f"        {job}: {what}")
        return progress

    def end(self, outcome: Outcome) -> None:
        """A job has ended."""
        self._running.pop(outcome.job, None)
        self.finished += 1
        reason = f": {outcome.reason}" if outcome.reason else ""
        self.say(f"[{self.finished:>3}/{self.total}] {outcome.job} {outcome.state}{reason}")

    def refresh(self) -> None:
        """Draw the live lines anew; in a log file, now and then add them."""
        if not self.live:
            if time.monotonic() - self._said >= SAY_EVERY_S:
                self._said = time.monotonic()
                for line in self._running_lines():
                    self.say(line)
            return
        with self._writing:
            self._clear()
            self._draw()

    def _running_lines(self) -> list[str]:
        running = list(self._running.items())
        return [f"        {job}: {what} {progress.state}" for job, (what, progress) in running]

    def _clear(self) -> None:
        if self.live and self._lines:
            self.screen.write(f"\x1b[{self._lines}F\x1b[J")
            self._lines = 0

    def _draw(self) -> None:
        if not self.live:
            return
        for line in self._running_lines():
            print(line[: self._width()], file=self.screen)  # a wrapped one would stay
            self._lines += 1
        self.screen.flush()

    def _width(self) -> int:
        """Characters of a row, less one for terminals that wrap a full one."""
        try:
            return max(20, os.get_terminal_size(self.screen.fileno()).columns - 1)
        except (OSError, ValueError):
            return 79


def run_jobs(
    jobs: Sequence[Runnable],
    resources: Resources,
    needs: Mapping[Runnable, Collection[Runnable]] = MappingProxyType({}),
) -> list[Outcome]:
    """Run what is left of the jobs; one that fails does not stop the others.

    Args:
        jobs: no two are equal.
        resources: for them.
        needs: job -> those that it waits for, if they are of ``jobs``, in whatever way they end,
            also where another process works on them.

    Raises:
        KeyboardInterrupt: after the running commands have been ended.
    """
    board, stop = Board(len(jobs)), threading.Event()
    slots: queue.Queue[dict[str, str]] = queue.Queue()
    for slot in resources.slots():
        slots.put(slot)
    processes = max(1, resources.threads // 2)

    def work(job: Runnable) -> Outcome:
        with borrowed(slots) as variables:
            outcome = run_job(job, resources, variables, processes, board, stop)
        board.end(outcome)
        return outcome

    needed = {one for others in needs.values() for one in others}

    def has_ended(job: Runnable) -> bool:
        """Nobody works on it any more, neither we nor, if somebody waits for it, others."""
        if not (job in futures and futures[job].done()):
            return False
        elsewhere = job in needed and futures[job].result().state == "elsewhere"
        return not elsewhere or holder_of(job.lock) is None

    with ThreadPoolExecutor(resources.jobs) as pool:
        futures: dict[Runnable, Future[Outcome]] = {}
        left = set(jobs)
        try:
            while not all(job in futures and futures[job].done() for job in jobs):
                for job in jobs:
                    if job not in futures and left.isdisjoint(needs.get(job, ())):
                        futures[job] = pool.submit(work, job)
                time.sleep(LOOK_EVERY_S)
                board.refresh()
                left -= {job for job in left if has_ended(job)}
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    return [futures[job].result() for job in jobs]


@contextmanager
def borrowed(slots: queue.Queue[dict[str, str]]) -> Iterator[dict[str, str]]:
    """A free place, given back after the block."""
    slot = slots.get()
    try:
        yield slot
    finally:
        slots.put(slot)


def run_job(
    job: Runnable,
    resources: Resources,
    variables: Mapping[str, str],
    processes: int,
    board: Board,
    stop: threading.Event,
) -> Outcome:
    """Run the commands that are left of one job."""
    if job.is_done:
        return Outcome(job, "done before")
    try:
        with held(job.lock) as other:
            if other is not None:
                return Outcome(job, "elsewhere", f"{other} works on it")
            failure_note(job).unlink(missing_ok=True)
            board.say(f"        {job}: log in {job.log}")
            started = time.monotonic()
            threads = None if resources.gpus else resources.threads
            for words in job.commands(resources.device, processes):
                progress = board.start(job, name_of(words))
                environment = {**child_environment(resources), **variables}
                run_command(words, environment, job.log, progress, threads, stop)
    except Cancelled:
        return Outcome(job, "interrupted")
    except BrokenPipeError:  # nobody reads the board any more
        raise
    except (UserError, OSError) as error:  # such as a full disk, or a folder of somebody else's
        with suppress(OSError):
            failure_note(job).write_text(f"{error}\n", encoding="utf-8")
        return Outcome(job, "failed", str(error))
    return Outcome(job, "done", f"in {readable_time(time.monotonic() - started)}")


def failure_note(job: Runnable) -> Path:
    """The file that says why a job failed when it last ran; it is absent if it did not fail."""
    return job.log.with_suffix(".failed")


def child_environment(resources: Resources) -> dict[str, str]:
    """nnU-Net finds our trainers, and takes no more than a job's share of the machine."""
    on_gpu = bool(resources.gpus)
    workers = max(1, resources.threads - 1) if on_gpu else 0  # the CPU trains; it loads in between
    return {
        "nnUNet_extTrainer": trainer_folders(),
        "nnUNet_n_proc_DA": str(min(12, workers)),
        "nnUNet_def_n_proc": str(max(1, resources.threads // 2)),
        "OMP_WAIT_POLICY": "passive",
    }
