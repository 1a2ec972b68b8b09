"""Run jobs as tasks of a Ray cluster; a task is repeated on another node if its node is lost.

A task runs the command of one job as a process of its node. That process ends with the task, even
if the task is killed (see :mod:`semi_nnunet.runs.tether`). Until then it holds the job's lock, for
which the next attempt waits. Finished steps are complete and are kept.
"""

from __future__ import annotations

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

from semi_nnunet.runs.commands import PATIENCE_WITH_VERBS_S, run_command
from semi_nnunet.runs.display import CommandProgress
from semi_nnunet.runs.local import LOOK_EVERY_S, JobBoard, JobOutcome, Runnable
from semi_nnunet.util.command import Command
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.lock import holder_of
from semi_nnunet.util.progress import readable_time

logger = logging.getLogger(__name__)

RETRIES = 10  # of a task whose node was lost
CONNECT_S = 10.0
WAIT_FOR_LOCK_S = 2 * PATIENCE_WITH_VERBS_S


@contextmanager
def connect_cluster(address: str | None) -> Iterator[Any]:
    """Connect the package ``ray`` to a cluster inside the block.

    Args:
        address: of a running cluster; None: RAY_ADDRESS, or a cluster on this machine, else start
            one on this machine and end it after the block.

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
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # send no statistics to its makers
    handler = signal.getsignal(signal.SIGTERM)
    try:
        require_listener(address or os.environ.get("RAY_ADDRESS"))
        ray.init(address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"no Ray cluster at {address or os.environ.get('RAY_ADDRESS')}: {error}",
            fix="start one (ray start --head), or correct --ray-address or RAY_ADDRESS",
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray's handler aborts the process
    try:
        yield ray
    finally:
        ray.shutdown()


def require_listener(address: str | None) -> None:
    """Check that a server listens at HOST:PORT; Ray itself would try for many minutes.

    Raises:
        OSError: no server listens.
    """
    host, _, port = (address or "").rpartition("://")[2].rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), CONNECT_S).close()


@dataclass(frozen=True)
class TaskResources:
    """The cores and GPUs that each task needs of its node."""

    gpus: int
    cpus: int


def choose_task_resources(ray: Any, device: str | None, cpus: int | None) -> TaskResources:
    """Choose a GPU with its share of a node's cores for cuda, else one core.

    Args:
        device: None: cuda if the cluster has a GPU.
        cpus: cores that the user asked for.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    with_gpu = [node for node in nodes if node.get("GPU")]
    gpus = int(device == "cuda" or (device is None and bool(with_gpu)))
    if cpus is None:
        shares = [int(node.get("CPU", 1) // node["GPU"]) for node in with_gpu if gpus]
        cpus = max(1, min(shares, default=1))
    if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
        logger.info(f"no node has {cpus} cores and {gpus} GPUs: the jobs wait until one joins")
    return TaskResources(gpus, cpus)


def run_on_ray(
    ray: Any,
    jobs: Mapping[int, Runnable],
    needs: Mapping[Runnable, Collection[Runnable]],
    words: Command,
    per_task: TaskResources,
    at_a_time: int,
    logs: Path,
    board: JobBoard,
) -> list[JobOutcome]:
    """Run the jobs; a failing job does not stop the others.

    Args:
        jobs: by their index in the list that the command makes.
        needs: job -> the jobs that must end first, successfully or not.
        words: the command, without ``--only INDEX``.
        per_task: cores and GPUs of each task.
        at_a_time: number of jobs that may run at once.
        logs: folder for the output of these commands.
        board: shows the progress, from the jobs' own logs.

    Raises:
        KeyboardInterrupt: after the running commands have been ended.
    """
    remote = ray.remote(run_task).options(
        num_cpus=per_task.cpus, num_gpus=per_task.gpus, max_retries=RETRIES
    )
    variables = {name: os.environ[name] for name in os.environ if name.startswith("nnUNet_")}
    waiting, running = dict(jobs), dict[Any, FollowedJob]()
    outcomes: list[JobOutcome] = []
    try:
        while waiting or running:
            unfinished = {*waiting.values(), *(followed.job for followed in running.values())}
            ready = [i for i, job in waiting.items() if unfinished.isdisjoint(needs.get(job, ()))]
            for index in ready[: at_a_time - len(running)]:
                job = waiting.pop(index)
                task = (*words, "--only", str(index)), variables, logs / f"ray_{index}.log"
                running[remote.remote(*task, job.lock)] = FollowedJob(job, board)
            ended, _ = ray.wait(list(running), timeout=LOOK_EVERY_S)
            for followed in running.values():
                followed.read_new_lines()
            for reference in ended:
                outcomes.append(collect_outcome(ray, reference, running.pop(reference)))
                board.end(outcomes[-1])
            board.refresh()
    except BaseException:
        for reference in running:
            ray.cancel(reference)
        ray.wait(list(running), num_returns=len(running), timeout=PATIENCE_WITH_VERBS_S)
        raise
    return outcomes


def run_task(words: Command, variables: Mapping[str, str], log: Path, lock: Path) -> str:
    """Run a command on this node, as a task; return the error message, or "" on success."""
    until = time.monotonic() + WAIT_FOR_LOCK_S
    while holder_of(lock) is not None and time.monotonic() < until:
        time.sleep(LOOK_EVERY_S)  # the process of a lost node may hold it
    try:
        run_command(words, variables, log)
    except UserError as error:
        return str(error)
    return ""


@dataclass
class FollowedJob:
    """A job whose growing log is read, whichever process writes it."""

    job: Runnable
    board: JobBoard
    read: int = 0
    progress: CommandProgress | None = None
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.read = self.job.log.stat().st_size if self.job.log.is_file() else 0

    def read_new_lines(self) -> None:
        """Feed the complete lines written since the last call to the board."""
        if not self.job.log.is_file() or self.job.log.stat().st_size <= self.read:
            return
        with self.job.log.open("rb") as file:
            file.seek(self.read)
            lines, newline, _ = file.read().rpartition(b"\n")
        self.read += len(lines) + len(newline)
        if self.progress is None:
            self.started = time.monotonic()
            self.progress = self.board.start(self.job, "on Ray")
        for line in lines.decode(errors="replace").splitlines():
            self.progress.feed(line)


def collect_outcome(ray: Any, reference: Any, followed: FollowedJob) -> JobOutcome:
    """Return the outcome of a task that has ended."""
    try:
        problem = ray.get(reference)
    except ray.exceptions.RayError as error:
        problem = f"its node was lost, or Ray failed: {error}"
    if problem:
        return JobOutcome(followed.job, "failed", problem)
    return JobOutcome(
        followed.job, "done", f"in {readable_time(time.monotonic() - followed.started)}"
    )
