"""Launch jobs on this machine, as arrays of SLURM or as tasks of Ray.

A process on a cluster runs the same command with ``--only N``, which makes the same list of jobs
and does job N.
"""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from semi_nnunet.core.devices import choose_device
from semi_nnunet.runs.commands import interrupt_on_signals
from semi_nnunet.runs.local import JobBoard, JobOutcome, Resources, Runnable, run_jobs
from semi_nnunet.runs.ray_cluster import choose_task_resources, connect_cluster, run_on_ray
from semi_nnunet.util.command import Command
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import write_text
from semi_nnunet.util.machine import usable_cores
from semi_nnunet.util.names import require_positive
from semi_nnunet.util.verb_commands import extend_command

logger = logging.getLogger(__name__)
WARNING_S = 120  # before SLURM's time limit: the training stops, and continues in a new task


@dataclass(frozen=True)
class JobLauncher:
    """Where and how jobs run.

    >>> JobLauncher("slurm", jobs=4, sbatch="--gres=gpu:1").is_local
    False

    Args:
        launcher: "local" (on this machine), "slurm" or "ray".
        device: "cpu", "cuda" or "mps"; None: cuda if there is one.
        jobs: at a time; None: one for each GPU, one on the CPU, all that fit on a cluster.
        threads: cores for each job; None: this machine's, shared among the jobs.
        sbatch: further options of sbatch, such as "--gres=gpu:1".
        ray_address: of a running cluster; None: RAY_ADDRESS, else this machine.
        only: index of the job that this process of a cluster runs; None: launch all unfinished.
    """

    launcher: str = "local"
    device: str | None = None
    jobs: int | None = None
    threads: int | None = None
    sbatch: str = ""
    ray_address: str | None = None
    only: int | None = None

    def __post_init__(self) -> None:
        require_positive({"--jobs": self.jobs, "--threads": self.threads})

    @property
    def is_local(self) -> bool:
        """Whether the jobs run on this machine."""
        return self.launcher == "local"

    @property
    def is_remote(self) -> bool:
        """Whether the jobs run on other machines, whose devices are unknown here."""
        address = self.ray_address or os.environ.get("RAY_ADDRESS")
        return self.launcher == "slurm" or (self.launcher == "ray" and bool(address))

    def require_usable(self) -> None:
        """Check that this machine can launch, before a job is recorded.

        Raises:
            UserError: the device or sbatch is missing.
        """
        if self.is_local:
            find_resources(self.device, self.jobs, self.threads)
        elif self.launcher == "slurm":
            require_sbatch()


@dataclass(frozen=True)
class JobWork:
    """The jobs of a verb, and its command.

    Args:
        command: from which every process makes the same list of jobs.
        jobs: all jobs.
        unfinished: indices of the jobs that are not done.
        logs: folder for the launcher's files.
        needs: job -> the jobs that must end first, successfully or not.
    """

    command: Command
    jobs: Sequence[Runnable]
    unfinished: Sequence[int]
    logs: Path
    needs: Mapping[Any, Collection[Runnable]] = field(default_factory=dict)

    def group_by_dependencies(self) -> list[list[int]]:
        """Group the unfinished jobs so that jobs wait only for jobs of earlier groups."""
        groups, waiting = [], list(self.unfinished)
        while waiting:
            unfinished = {self.jobs[index] for index in waiting}
            group = [i for i in waiting if unfinished.isdisjoint(self.needs.get(self.jobs[i], ()))]
            groups.append(group)
            waiting = sorted({*waiting} - {*group})
        return groups


class UnfinishedError(UserError):
    """Jobs are not done; the reasons were printed."""

    exit_code = 1  # of a command that ends with it


def run_work(launcher: JobLauncher, work: JobWork) -> bool:
    """Run all unfinished jobs, or submit them to a cluster.

    Returns:
        True if all jobs are done; False if they were handed to a cluster, or if this process of a
        cluster did its job.

    Raises:
        UnfinishedError: jobs failed.
        UserError: the launcher cannot be used here, or there is no job ``launcher.only``.
    """
    if launcher.only is not None and not 0 <= launcher.only < len(work.jobs):
        raise UserError(
            f"--only must be the number of one of {len(work.jobs)} jobs, from 0, got "
            f"{launcher.only}: the list of jobs has changed since this one was launched",
            fix="run the command again that launched it",
        )
    if not work.unfinished and launcher.only is None:
        return True
    if launcher.launcher == "slurm":
        submit_levels(launcher, work)
        return False
    run = run_with_ray if launcher.launcher == "ray" else run_locally
    undone = [
        outcome
        for outcome in run(launcher, work)
        if outcome.state == "failed" or (outcome.state == "elsewhere" and not outcome.job.is_done)
    ]
    if undone:
        logger.info(f"{len(undone)} of {len(work.jobs)} jobs are not done; run the same command "
                    f"again to continue:")  # fmt: skip
        for outcome in undone:
            log = outcome.job.log
            reason = f", see {log}" if log.is_file() else f": {outcome.reason}"
            logger.info(f"  {outcome.job}: {outcome.state}{reason}")
        raise UnfinishedError("jobs are not done", fix="see above, and run the same command again")
    return launcher.only is None


def run_locally(launcher: JobLauncher, work: JobWork) -> list[JobOutcome]:
    """Run the jobs, or the only one, on this machine."""
    resources = find_resources(launcher.device, launcher.jobs, launcher.threads)
    indices = work.unfinished if launcher.only is None else [launcher.only]
    logger.info(f"on {resources}")
    with interrupt_on_signals():
        return run_jobs([work.jobs[index] for index in indices], resources, work.needs)


def run_with_ray(launcher: JobLauncher, work: JobWork) -> list[JobOutcome]:
    """Run the jobs as tasks of Ray."""
    board = JobBoard(len(work.unfinished))
    with connect_cluster(launcher.ray_address) as ray, interrupt_on_signals(), board:
        per_task = choose_task_resources(ray, launcher.device, launcher.threads)
        device = launcher.device or ("cuda" if per_task.gpus else "cpu")
        words = extend_command(work.command, device=device, jobs=1, threads=per_task.cpus)
        logger.info(f"on Ray at {ray.get_runtime_context().gcs_address}, {device}")
        jobs = {index: work.jobs[index] for index in work.unfinished}
        at_a_time = launcher.jobs or len(jobs)
        return run_on_ray(ray, jobs, work.needs, words, per_task, at_a_time, work.logs, board)


def submit_levels(launcher: JobLauncher, work: JobWork) -> None:
    """Submit an array of SLURM for each group of jobs, with a task for each job."""
    options = {"jobs": 1, "device": launcher.device, "threads": launcher.threads}
    _, *words = map(str, extend_command(work.command, **options))
    arrays: list[str] = []
    for group in work.group_by_dependencies():
        previous = arrays[-1] if arrays else None
        at_a_time = launcher.jobs or len(group)
        script = build_batch_script(words, group, at_a_time, work.logs, launcher.sbatch, previous)
        arrays.append(submit_script(script, work.logs / f"array_{len(arrays)}.sh"))
        logger.info(f"submitted {len(group)} of {len(work.jobs)} jobs as array {arrays[-1]}, logs "
                    f"in {work.logs}")  # fmt: skip
    logger.info(f"next: squeue -j {','.join(arrays)}; when it is empty, this command again")


def find_resources(
    device: str | None, jobs: int | None = None, threads: int | None = None
) -> Resources:
    """Find the devices, jobs at a time and threads to compute with.

    Raises:
        UserError: the machine has no such device.
    """
    device = choose_device(device)
    cores = usable_cores()
    gpus: tuple[str, ...] = ()
    if device == "cuda":
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        numbers = map(str, range(torch.cuda.device_count()))
        gpus = tuple(visible.split(",")) if visible else tuple(numbers)
    jobs = jobs or max(1, len(gpus))
    return Resources(device, gpus, jobs, threads or max(1, cores // jobs))


# ---- SLURM: tasks of a job array, requeued when their time is up ----


def build_batch_script(
    arguments: Sequence[str],
    indices: Sequence[int],
    at_a_time: int,
    logs: Path,
    sbatch: str,
    after: str | None = None,
) -> str:
    """Return the script of an array whose task N runs job N of the list.

    Args:
        arguments: of ``semi_nnunet``, from which every task makes the same list; with --only N it
            runs one job.
        indices: of the jobs to run.
        at_a_time: number of tasks that may run at once.
        logs: folder for SLURM's logs.
        sbatch: further options of sbatch, such as "--partition=gpu --gres=gpu:1".
        after: number of an array that must end, successfully or not, before this one starts.

    Raises:
        UserError: a folder or option has a line break, after which the shell would read commands.
    """
    options = [*([f"--dependency=afterany:{after}"] if after else []), *shlex.split(sbatch)]
    command = shlex.join([sys.executable, "-m", "semi_nnunet.cli.main", *arguments])
    output = shlex.quote(str(logs).replace("%", "%%"))  # sbatch has names of its own with %
    for text in (output, *options):
        if not text.isprintable():
            raise UserError(
                f"folders and options for sbatch must have no line breaks or control characters, "
                f"got {text!a}",
                fix="rename the folder, or correct --sbatch",
            )
    return f"""#!/bin/bash
#SBATCH --job-name=semi_nnunet
#SBATCH --array={",".join(map(str, indices))}%{at_a_time}
#SBATCH --output={output}/%A_%a.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@{WARNING_S}
{"".join(f"#SBATCH {shlex.quote(option)}" + chr(10) for option in options)}
# when the time is nearly up: stop, and continue in a new task
trap 'scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"' USR1
{command} --only "$SLURM_ARRAY_TASK_ID" &
child=$!
trap 'kill -TERM "$child"' TERM
while kill -0 "$child" 2> /dev/null; do wait "$child"; done
wait "$child"
"""


def require_sbatch() -> None:
    """Check that this machine has sbatch.

    Raises:
        UserError: it has not.
    """
    if shutil.which("sbatch") is None:
        raise UserError(
            "--launcher slurm needs sbatch, found none", fix="run it on the cluster's login node"
        )


def submit_script(script: str, path: Path) -> str:
    """Write the script, submit it with sbatch, and return the number of the array.

    Raises:
        UserError: sbatch is missing, or refuses the script.
    """
    require_sbatch()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, script)
    run = subprocess.run(["sbatch", "--parsable", str(path)], capture_output=True, text=True)
    if run.returncode:
        raise UserError(
            f"sbatch refused {path}: {run.stderr.strip()}",
            fix="if it names an option, "
            "correct --sbatch='--partition=gpu --gres=gpu:1 --time=1-00:00:00'; else try sinfo",
        )
    return run.stdout.strip().split(";")[0]
