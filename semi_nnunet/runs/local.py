"""Run jobs side by side on this machine: one on each GPU, or sharing the cores of the CPU."""

from __future__ import annotations

import queue
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
from semi_nnunet.runs.commands import (
    CommandCancelled,
    get_command_name,
    run_command,
)
from semi_nnunet.runs.display import CommandProgress, LiveLines
from semi_nnunet.util.command import Command
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.lock import held, holder_of
from semi_nnunet.util.progress import readable_time

LOOK_EVERY_S = 1.0
SAY_EVERY_S = 600.0  # in a log file, between lines on the progress of running jobs


class Runnable(Protocol):
    """A job made of commands; hashable, and printed as its name."""

    @property
    def log(self) -> Path:
        """The file with the output of the job's commands."""

    @property
    def lock(self) -> Path:
        """The lock that is held while a process works on the job."""

    @property
    def is_done(self) -> bool:
        """Whether the job has no command left."""

    def commands(self, device: str, processes: int) -> Iterator[Command]:
        """Yield the remaining commands, each decided when the previous one has ended."""


@dataclass(frozen=True)
class Resources:
    """The devices, jobs at a time and threads that jobs may use.

    >>> print(Resources("cpu", (), jobs=2, threads=4))
    cpu, 2 at a time with 4 cores

    Args:
        device: cpu, cuda or mps.
        gpus: names of the GPUs of CUDA, one job on each at a time; () on another device.
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
        """Return the environment variables of each job that runs at a time."""
        if self.gpus:
            gpus = [self.gpus[i % len(self.gpus)] for i in range(self.jobs)]
            return [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in gpus]
        return [{"OMP_NUM_THREADS": str(self.threads)} for _ in range(self.jobs)]


@dataclass
class JobOutcome:
    """The end of a job: "done", "done before", "failed" or "elsewhere", with the reason."""

    job: Runnable
    state: str
    reason: str = ""


class JobBoard:
    """The screen of running jobs: a live line for each on a terminal, only changes elsewhere.

    The live lines are shown inside a ``with`` block.
    """

    def __init__(self, total: int, screen: TextIO | None = None):
        self.total, self.finished = total, 0
        self._running: dict[Runnable, tuple[str, CommandProgress]] = {}
        self._last_report = time.monotonic()
        self._live = LiveLines(self._running_lines, screen)
        self.print_line = self._live.print_line

    def __enter__(self) -> JobBoard:
        self._live.refresh()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def start(self, job: Runnable, activity: str) -> CommandProgress:
        """Show that a command of a job has begun, and return its progress, to feed."""
        progress = CommandProgress()
        self._running[job] = (activity, progress)
        if not self._live.is_live:
            self.print_line(f"        {job}: {activity}")
        return progress

    def end(self, outcome: JobOutcome) -> None:
        """Show that a job has ended."""
        self._running.pop(outcome.job, None)
        self.finished += 1
        reason = f": {outcome.reason}" if outcome.reason else ""
        self.print_line(f"[{self.finished:>3}/{self.total}] {outcome.job} {outcome.state}{reason}")

    def refresh(self) -> None:
        """Redraw the live lines; in a log file, add them every ten minutes."""
        self._live.refresh()
        if not self._live.is_live and time.monotonic() - self._last_report >= SAY_EVERY_S:
            self._last_report = time.monotonic()
            for line in self._running_lines():
                self.print_line(line)

    def _running_lines(self) -> list[str]:
        jobs = list(self._running.items())
        return [f"        {job}: {activity} {shown.state}" for job, (activity, shown) in jobs]


def run_jobs(
    jobs: Sequence[Runnable],
    resources: Resources,
    needs: Mapping[Runnable, Collection[Runnable]] = MappingProxyType({}),
) -> list[JobOutcome]:
    """Run the jobs that are not done; a failing job does not stop the others.

    Args:
        jobs: distinct jobs.
        resources: for the jobs.
        needs: job -> the jobs, of ``jobs``, that must end first, successfully or not, also if
            another process works on them.

    Raises:
        KeyboardInterrupt: after the running commands have been ended.
    """
    board, stop = JobBoard(len(jobs)), threading.Event()
    slots: queue.Queue[dict[str, str]] = queue.Queue()
    for slot in resources.slots():
        slots.put(slot)
    processes = max(1, resources.threads // 2)

    def work(job: Runnable) -> JobOutcome:
        with borrow_slot(slots) as variables:
            outcome = run_job(job, resources, variables, processes, board, stop)
        board.end(outcome)
        return outcome

    required = {job for dependencies in needs.values() for job in dependencies}

    def has_ended(job: Runnable) -> bool:
        """Return whether the job has ended, here and, if another job needs it, elsewhere."""
        if not (job in futures and futures[job].done()):
            return False
        elsewhere = job in required and futures[job].result().state == "elsewhere"
        return not elsewhere or holder_of(job.lock) is None

    with board, ThreadPoolExecutor(resources.jobs) as pool:
        futures: dict[Runnable, Future[JobOutcome]] = {}
        unfinished = set(jobs)
        try:
            while not all(job in futures and futures[job].done() for job in jobs):
                for job in jobs:
                    if job not in futures and unfinished.isdisjoint(needs.get(job, ())):
                        futures[job] = pool.submit(work, job)
                time.sleep(LOOK_EVERY_S)
                board.refresh()
                unfinished -= {job for job in unfinished if has_ended(job)}
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    return [futures[job].result() for job in jobs]


@contextmanager
def borrow_slot(slots: queue.Queue[dict[str, str]]) -> Iterator[dict[str, str]]:
    """Take a free slot inside the block, and return it after."""
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
    board: JobBoard,
    stop: threading.Event,
) -> JobOutcome:
    """Run the remaining commands of one job."""
    if job.is_done:
        return JobOutcome(job, "done before")
    try:
        with held(job.lock) as holder:
            if holder is not None:
                return JobOutcome(job, "elsewhere", f"{holder} works on it")
            get_failure_file(job).unlink(missing_ok=True)
            board.print_line(f"        {job}: log in {job.log}")
            started = time.monotonic()
            threads = None if resources.gpus else resources.threads
            for words in job.commands(resources.device, processes):
                progress = board.start(job, get_command_name(words))
                environment = {**build_child_environment(resources), **variables}
                run_command(words, environment, job.log, progress, threads, stop)
    except CommandCancelled:
        return JobOutcome(job, "interrupted")
    except BrokenPipeError:  # the reader of the board is gone
        raise
    except (UserError, OSError) as error:  # such as a full disk, or a folder without permission
        with suppress(OSError):
            get_failure_file(job).write_text(f"{error}\n", encoding="utf-8")
        return JobOutcome(job, "failed", str(error))
    return JobOutcome(job, "done", f"in {readable_time(time.monotonic() - started)}")


def get_failure_file(job: Runnable) -> Path:
    """Return the file with the reason of a job's last failure; it exists only after a failure."""
    return job.log.with_suffix(".failed")


def build_child_environment(resources: Resources) -> dict[str, str]:
    """Return variables that limit nnU-Net to a job's share of the machine and find our trainers."""
    on_gpu = bool(resources.gpus)
    workers = max(1, resources.threads - 1) if on_gpu else 0  # a CPU trains, and loads in between
    return {
        "nnUNet_extTrainer": trainer_folders(),
        "nnUNet_n_proc_DA": str(min(12, workers)),
        "nnUNet_def_n_proc": str(max(1, resources.threads // 2)),
        "OMP_WAIT_POLICY": "passive",
    }
