"""Where the jobs of a verb run: on this machine, as arrays of SLURM or as tasks of Ray.

A cluster's process runs ``semi_nnunet WORDS --only N``, which makes the same list of jobs and does
job N of it.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from semi_nnunet.util.errors import Problem, UserError

if TYPE_CHECKING:
    from semi_nnunet.runs.local import Job, Outcome, Resources


def add_arguments(parser: argparse.ArgumentParser, on_cpu: bool = False) -> None:
    """The options of all verbs that launch jobs.

    Args:
        parser: of the verb.
        on_cpu: its jobs use no other device.
    """
    add = parser.add_argument
    if on_cpu:
        add("--device", default="cpu", help=argparse.SUPPRESS)
    else:
        add_device(parser)
    add("--jobs", type=int, help="at a time (default: one for each GPU; 1 on the CPU; all that fit "
        "on a cluster)")  # fmt: skip
    add("--threads", type=int, metavar="N", help="cores for each job (default: this machine's, "
        "shared among the jobs; on Ray a node's for each GPU, or 1)")  # fmt: skip
    add("--launcher", choices=["local", "slurm", "ray"], default="local", help="%(default)s")
    add("--sbatch", default="", metavar="OPTIONS", help="of sbatch, as --sbatch='--gres=gpu:1'")
    add("--ray-address", metavar="ADDRESS", help="of a running cluster (ray only; default: "
        "RAY_ADDRESS, else this machine)")  # fmt: skip
    add("--only", type=int, help=argparse.SUPPRESS)  # the job of a process of a cluster


def add_device(parser: argparse.ArgumentParser) -> None:
    """The option of all verbs whose commands compute on a device."""
    devices = ["cpu", "cuda", "mps"]
    parser.add_argument("--device", choices=devices, help="default: cuda if there is one")


@dataclass(frozen=True)
class Launcher:
    """How to launch; the fields are the options of :func:`add_arguments`."""

    launcher: str = "local"
    device: str | None = None
    jobs: int | None = None
    threads: int | None = None
    sbatch: str = ""
    ray_address: str | None = None
    only: int | None = None

    @classmethod
    def of(cls, args: argparse.Namespace) -> Launcher:
        """From the command line.

        Raises:
            UserError: a number is too small.
        """
        require_positive(args, "jobs", "threads")
        return cls(**{name: getattr(args, name) for name in cls.__dataclass_fields__})

    def require_usable(self) -> None:
        """Check that this machine has what it needs, before a job is noted.

        Raises:
            UserError: it has not.
        """
        from semi_nnunet.runs.slurm import require_sbatch

        if self.launcher == "local":
            find_resources(self.device, self.jobs, self.threads)
        elif self.launcher == "slurm":
            require_sbatch()


def require_positive(args: argparse.Namespace, *names: str) -> None:
    """Check options that are numbers, where they were given.

    Raises:
        UserError: one is below 1.
    """
    options = {"-np" if name == "processes" else f"--{name}": getattr(args, name) for name in names}
    for problem in below_one(options):
        raise UserError(f"{problem.where} {problem.what}. Fix: {problem.fix}")


def below_one(options: Mapping[str, int | None]) -> Iterator[Problem]:
    """Those of the options' numbers that are given and not 1 or more."""
    for option, number in options.items():
        if number is not None and number < 1:
            yield Problem(option, f"must be 1 or more, got {number}", "correct it")


@dataclass(frozen=True)
class Work:
    """What a verb wants done.

    Args:
        words: of ``semi_nnunet``, from which every process makes the same list of jobs.
        jobs: all of them.
        left: indices of the jobs that are left.
        logs: folder for what the launcher writes.
        needs: job -> those that it waits for, in whatever way they end.
    """

    words: Sequence[str]
    jobs: Sequence[Job]
    left: Sequence[int]
    logs: Path
    needs: Mapping[Job, Collection[Job]] = field(default_factory=dict)

    def dependency_levels(self) -> list[list[int]]:
        """What is left, in groups whose jobs wait for none but those of earlier groups."""
        dependency_levels, waiting = [], list(self.left)
        while waiting:
            others = {self.jobs[index] for index in waiting}
            wave = [i for i in waiting if others.isdisjoint(self.needs.get(self.jobs[i], ()))]
            dependency_levels.append(wave)
            waiting = sorted({*waiting} - {*wave})
        return dependency_levels


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
            f"{launcher.only}: the list of jobs has changed since this one was launched. Fix: run "
            f"the command again that launched it"
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
    from semi_nnunet.runs.commands import ended_like_ctrl_c
    from semi_nnunet.runs.local import run_jobs

    resources = find_resources(launcher.device, launcher.jobs, launcher.threads)
    left = work.left if launcher.only is None else [launcher.only]
    print(f"on {resources}", flush=True)
    with ended_like_ctrl_c():
        return run_jobs([work.jobs[index] for index in left], resources, work.needs)


def run_with_ray(launcher: Launcher, work: Work) -> list[Outcome]:
    """Run the jobs as tasks."""
    from semi_nnunet.runs.commands import ended_like_ctrl_c
    from semi_nnunet.runs.local import Board
    from semi_nnunet.runs.ray_cluster import cluster, run_on_ray, share_of

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
    from semi_nnunet.runs.slurm import batch_script, submit

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
    """What there is to compute with.

    Raises:
        UserError: the device is not there.
    """
    import torch

    from semi_nnunet.runs.local import Resources

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpus: tuple[str, ...] = ()
    if device == "cuda":
        count = torch.cuda.device_count()
        if count == 0:
            raise UserError("--device cuda needs a GPU, found none. Fix: --device cpu")
        chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
        gpus = tuple(chosen.split(",")) if chosen else tuple(map(str, range(count)))
    jobs = jobs or max(1, len(gpus))
    return Resources(device, gpus, jobs, threads or max(1, (cores or 1) // jobs))
