"""Run jobs on a Ray cluster: a task each, done again on another node when its own is lost.

A task runs the command of one job as a process of its node. That process ends with the task's,
also when the latter is killed (see :mod:`semi_nnunet.runs.tether`). Until it has, it holds the
job's lock, for which the next attempt waits; what was finished before is whole and is kept.
"""

from __future__ import annotations

import io
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from semi_nnunet.runs.commands import PATIENCE_WITH_VERBS_S, ProgressDisplay, run_command
from semi_nnunet.runs.local import LOOK_EVERY_S, Board, Outcome, Runnable
from semi_nnunet.util.command import Command
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.lock import holder_of
from semi_nnunet.util.progress import readable_time

RETRIES = 10  # of a task whose node was lost
CONNECT_S = 10.0
WAIT_FOR_LOCK_S = 2 * PATIENCE_WITH_VERBS_S


@contextmanager
def cluster(address: str | None) -> Iterator[Any]:
    """The connected package ``ray``.

    Args:
        address: of a running cluster; None: RAY_ADDRESS, or a cluster on this machine, else one is
            started on it and ended after the block.

    Raises:
        UserError: Ray is not installed, or no cluster answers.
    """
    try:
        import ray
    except ImportError as error:
        raise UserError(
            "--launcher ray needs the package ray, which is not installed",
            fix="pip install 'semi_nnunet[ray]'",
        ) from error
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to its makers
    before = signal.getsignal(signal.SIGTERM)
    try:
        require_answer(address or os.environ.get("RAY_ADDRESS"))
        ray.init(address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"no Ray cluster at {address or os.environ.get('RAY_ADDRESS')}: {error}",
            fix="start one (ray start --head), or correct --ray-address or RAY_ADDRESS",
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)  # Ray's handler aborts the process
    try:
        yield ray
    finally:
        ray.shutdown()


def require_answer(address: str | None) -> None:
    """Check that somebody listens at HOST:PORT; Ray itself tries for many minutes.

    Raises:
        OSError: nobody does.
    """
    host, _, port = (address or "").rpartition("://")[2].rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), CONNECT_S).close()


@dataclass(frozen=True)
class Share:
    """The processors and GPUs that each task needs of its node."""

    gpus: int
    cpus: int


def share_of(ray: Any, device: str | None, cpus: int | None) -> Share:
    """A GPU where the device is cuda, and the cores of a node for each of its GPUs; else one core.

    Args:
        ray: connected.
        device: None: cuda if the cluster has a GPU.
        cpus: those the user wants.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    with_gpu = [node for node in nodes if node.get("GPU")]
    gpus = int(device == "cuda" or (device is None and bool(with_gpu)))
    if cpus is None:
        shares = [int(node.get("CPU", 1) // node["GPU"]) for node in with_gpu if gpus]
        cpus = max(1, min(shares, default=1))
    share = Share(gpus, cpus)
    if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
        print(f"no node has {cpus} cores and {gpus} GPUs: the jobs wait until one joins")
    return share


def run_on_ray(
    ray: Any,
    jobs: Mapping[int, Runnable],
    needs: Mapping[Runnable, Collection[Runnable]],
    words: Command,
    share: Share,
    at_a_time: int,
    logs: Path,
    board: Board,
) -> list[Outcome]:
    """Run what is left of the jobs; one that fails does not stop the others.

    Args:
        ray: connected.
        jobs: by their index in the list that the command makes.
        needs: job -> those that it waits for, in whatever way they end.
        words: the command, without ``--only INDEX``.
        share: what each needs.
        at_a_time: how many may run at once.
        logs: folder for what these commands print.
        board: shows how far they are, from the jobs' own logs.

    Raises:
        KeyboardInterrupt: after the running commands have been ended.
    """
    remote = ray.remote(do).options(num_cpus=share.cpus, num_gpus=share.gpus, max_retries=RETRIES)
    variables = {name: os.environ[name] for name in os.environ if name.startswith("nnUNet_")}
    waiting, running = dict(jobs), dict[Any, Followed]()
    outcomes: list[Outcome] = []
    try:
        while waiting or running:
            unfinished = {*waiting.values(), *(followed.job for followed in running.values())}
            ready = [i for i, job in waiting.items() if unfinished.isdisjoint(needs.get(job, ()))]
            for index in ready[: at_a_time - len(running)]:
                job = waiting.pop(index)
                task = (*words, "--only", str(index)), variables, logs / f"ray_{index}.log"
                running[remote.remote(*task, job.lock)] = Followed(job, board)
            ended, _ = ray.wait(list(running), timeout=LOOK_EVERY_S)
            for followed in running.values():
                followed.look()
            for reference in ended:
                outcomes.append(outcome_of(ray, reference, running.pop(reference)))
                board.end(outcomes[-1])
            board.refresh()
    except BaseException:
        for reference in running:
            ray.cancel(reference)
        ray.wait(list(running), num_returns=len(running), timeout=PATIENCE_WITH_VERBS_S)
        raise
    return outcomes


def do(words: Command, variables: Mapping[str, str], log: Path, lock: Path) -> str:
    """The task: run a command on this node; returns what went wrong, if anything did."""
    until = time.monotonic() + WAIT_FOR_LOCK_S
    while holder_of(lock) is not None and time.monotonic() < until:
        time.sleep(LOOK_EVERY_S)  # for the process of a node that was lost
    try:
        run_command(words, variables, log, ProgressDisplay(io.StringIO()))
    except UserError as error:
        return str(error)
    return ""


@dataclass
class Followed:
    """A job whose log is read as it grows, whoever writes it."""

    job: Runnable
    board: Board
    read: int = 0
    progress: ProgressDisplay | None = None
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.read = self.job.log.stat().st_size if self.job.log.is_file() else 0

    def look(self) -> None:
        """Show what was written since the last time."""
        if not self.job.log.is_file() or self.job.log.stat().st_size <= self.read:
            return
        with self.job.log.open("rb") as file:
            file.seek(self.read)
            whole, newline, _ = file.read().rpartition(b"\n")
        self.read += len(whole) + len(newline)
        if self.progress is None:
            self.started = time.monotonic()
            self.progress = self.board.start(self.job, "on Ray")
        for line in whole.decode(errors="replace").splitlines():
            self.progress.feed(line)


def outcome_of(ray: Any, reference: Any, followed: Followed) -> Outcome:
    """Say how a task ended."""
    try:
        problem = ray.get(reference)
    except ray.exceptions.RayError as error:
        problem = f"its node was lost, or Ray failed: {error}"
    if problem:
        return Outcome(followed.job, "failed", problem)
    return Outcome(followed.job, "done", f"in {readable_time(time.monotonic() - followed.started)}")
