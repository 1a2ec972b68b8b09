"""Where jobs run: on this machine, as arrays of SLURM or as tasks of Ray.

A cluster's process runs ``semi_nnunet WORDS --only N``, which makes the same list of jobs and does
job N of it.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from semi_nnunet.runs.commands import ended_like_ctrl_c
from semi_nnunet.runs.local import Board, Outcome, Resources, Runnable, run_jobs
from semi_nnunet.runs.ray_cluster import cluster, run_on_ray, share_of
from semi_nnunet.runs.slurm import batch_script, require_sbatch, submit
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.machine import usable_cores
from semi_nnunet.util.names import require_positive


@dataclass(frozen=True)
class Launcher:
    """How to launch jobs.

    Args:
        launcher: "local" (on this machine), "slurm" or "ray".
        device: "cpu", "cuda" or "mps"; None: cuda if there is one.
        jobs: at a time; None: one for each GPU, one on the CPU, all that fit on a cluster.
        threads: cores for each job; None: this machine's, shared among the jobs.
        sbatch: further options of sbatch, such as "--gres=gpu:1".
        ray_address: of a running cluster; None: RAY_ADDRESS, else this machine.
        only: the job that this process of a cluster does; None: it launches all that is left.
    """

    launcher: str = "local"
    device: str | None = None
    jobs: int | None = None
    threads: int | None = None
    sbatch: str = ""
    ray_address: str | None = None
    only: int | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Launcher:
        """Make a launcher from options; options of other things among them are ignored.

        Raises:
            UserError: a number is too small.
        """
        found = {name: options[name] for name in cls.__dataclass_fields__ if name in options}
        require_positive({f"--{name}": found.get(name) for name in ("jobs", "threads")})
        return cls(**found)

    def options(self) -> list[str]:
        """The words of a verb from which :meth:`of` makes this launcher; defaults are left out."""
        given = {name: getattr(self, name) for name in ("device", "jobs", "threads", "ray_address")}
        given |= {"launcher": None if self.launcher == "local" else self.launcher}
        words = [word for name, value in given.items() if value
                 for word in (f"--{name.replace('_', '-')}", str(value))]  # fmt: skip
        return words + ([f"--sbatch={self.sbatch}"] if self.sbatch else [])

    def require_usable(self) -> None:
        """Check that this machine has what it needs, before a job is noted.

        Raises:
            UserError: it has not.
        """
        if self.launcher == "local":
            find_resources(self.device, self.jobs, self.threads)
        elif self.launcher == "slurm":
            require_sbatch()


@dataclass(frozen=True)
class Work:
    """The jobs of a verb, and the words that start one of them.

    Args:
        words: of ``semi_nnunet``, from which every process makes the same list of jobs.
        jobs: all of them.
        left: indices of the jobs that are left.
        logs: folder for what the launcher writes.
        needs: job -> those that it waits for, in whatever way they end.
    """

    words: Sequence[str]
    jobs: Sequence[Runnable]
    left: Sequence[int]
    logs: Path
    needs: Mapping[Any, Collection[Runnable]] = field(default_factory=dict)

    def dependency_levels(self) -> list[list[int]]:
        """Group what is left, so that jobs wait only for jobs of earlier groups."""
        dependency_levels, waiting = [], list(self.left)
        while waiting:
            others = {self.jobs[index] for index in waiting}
            wave = [i for i in waiting if others.isdisjoint(self.needs.get(self.jobs[i], ()))]
            dependency_levels.append(wave)
            waiting = sorted({*waiting} - {*wave})
        return dependency_levels


class UnfinishedError(UserError):
    """Jobs are not done; which, and why, was printed."""

    exit_code = 1  # of a command that ends with it


def finished(launcher: Launcher, work: Work) -> bool:
    """Do what is left.

    Returns:
        Whether all is done; False where it was handed to a cluster, or this is a cluster's process
        and did its job.

    Raises:
        UnfinishedError: jobs failed.
        UserError: the launcher cannot be used here, or a cluster's process finds no such job.
    """
    code = launch(launcher, work)
    if code:
        raise UnfinishedError("jobs are not done. Fix: see above, and run the same again")
    return code is None


def launch(launcher: Launcher, work: Work) -> int | None:
    """Do what is left.

    Returns:
        None if it is done and the verb goes on, else the exit code to end with.

    Raises:
        UserError: the launcher cannot be used here, or a cluster's process finds no such job.
    """
    if launcher.only is not None and not 0 <= launcher.only < len(work.jobs):
        raise UserError(
            f"--only must be the number of one of {len(work.jobs)} jobs, from 0, got "
            f"{launcher.only}: the list of jobs has changed since this one was launched",
            fix="run the command again that launched it",
        )
    if not work.left and launcher.only is None:
        return None
    if launcher.launcher == "slurm":
        submit_levels(launcher, work)
        return 0
    run = run_with_ray if launcher.launcher == "ray" else run_here
    outcomes = run(launcher, work)
    undone = [
        one
        for one in outcomes
        if one.state == "failed" or (one.state == "elsewhere" and not one.job.is_done)
    ]
    if undone:
        print(f"{len(undone)} of {len(work.jobs)} jobs are not done; run the same command again "
              f"to go on:")  # fmt: skip
        for outcome in undone:
            there = outcome.job.log.is_file()
            why = f", see {outcome.job.log}" if there else f": {outcome.reason}"
            print(f"  {outcome.job}: {outcome.state}{why}")
        return 1
    return None if launcher.only is None else 0


def run_here(launcher: Launcher, work: Work) -> list[Outcome]:
    """Run the jobs, or the only one, on this machine."""
    resources = find_resources(launcher.device, launcher.jobs, launcher.threads)
    left = work.left if launcher.only is None else [launcher.only]
    print(f"on {resources}", flush=True)
    with ended_like_ctrl_c():
        return run_jobs([work.jobs[index] for index in left], resources, work.needs)


def run_with_ray(launcher: Launcher, work: Work) -> list[Outcome]:
    """Run the jobs as tasks."""
    board = Board(len(work.left))
    with cluster(launcher.ray_address) as ray, ended_like_ctrl_c():
        share = share_of(ray, launcher.device, launcher.threads)
        device = launcher.device or ("cuda" if share.gpus else "cpu")
        words = ["semi_nnunet", *work.words, "--device", device, "--jobs", "1"]
        words += ["--threads", str(share.cpus)]
        print(f"on Ray at {ray.get_runtime_context().gcs_address}, {device}", flush=True)
        jobs = {index: work.jobs[index] for index in work.left}
        at_a_time = launcher.jobs or len(jobs)
        return run_on_ray(ray, jobs, work.needs, words, share, at_a_time, work.logs, board)


def submit_levels(launcher: Launcher, work: Work) -> None:
    """An array for each wave, with a task for each job."""
    words = [*work.words, "--jobs", "1"]
    words += ["--device", launcher.device] if launcher.device else []
    words += ["--threads", str(launcher.threads)] if launcher.threads else []
    numbers: list[str] = []
    for wave in work.dependency_levels():
        after = numbers[-1] if numbers else None
        at_a_time = launcher.jobs or len(wave)
        script = batch_script(words, wave, at_a_time, work.logs, launcher.sbatch, after)
        numbers.append(submit(script, work.logs / f"array_{len(numbers)}.sh"))
        print(f"submitted {len(wave)} of {len(work.jobs)} jobs as array {numbers[-1]}, logs in "
              f"{work.logs}")  # fmt: skip
    print(f"next: squeue -j {','.join(numbers)}; when it is empty, this command again")


def find_resources(
    device: str | None, jobs: int | None = None, threads: int | None = None
) -> Resources:
    """Find the devices, processes and threads to compute with.

    Raises:
        UserError: the device is not there.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    cores = usable_cores()
    gpus: tuple[str, ...] = ()
    if device == "cuda":
        count = torch.cuda.device_count()
        if count == 0:
            raise UserError("--device cuda needs a GPU, found none", fix="--device cpu")
        chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
        gpus = tuple(chosen.split(",")) if chosen else tuple(map(str, range(count)))
    jobs = jobs or max(1, len(gpus))
    return Resources(device, gpus, jobs, threads or max(1, cores // jobs))
