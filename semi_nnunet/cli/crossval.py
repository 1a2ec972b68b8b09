"""Train, predict and measure trainers x configurations x folds x seeds, as many at once as fit.

    semi_nnunet crossval -d 42 -c 2d -tr SemiBaselineTrainer SemiMeanTeacherTrainer --seeds 3
    semi_nnunet compare -d 42

Every job is nnU-Net's own nnUNetv2_train (and nnUNetv2_predict of imagesTs, if there is one), then
semi_nnunet evaluate. Run it again to go on: what is done is skipped, also a fold trained by hand,
and what was killed continues. Folds split the labelled cases; the unlabelled ones serve all. Seed 0
uses the plans, the others plans of their own (PLANS_seed1, ...). One job runs on each GPU, or as
many as --jobs on the CPU. On a cluster:

    semi_nnunet crossval ... --launcher slurm --sbatch '--gres=gpu:1 --time=12:00:00'

submits a task for each job; one whose time is up is requeued and continues.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from semi_nnunet.runs.job import Folders, Job
    from semi_nnunet.runs.local import Resources


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add, default = parser.add_argument, "default: %(default)s"
    add("-d", dest="dataset", required=True, metavar="ID", help="number or name of the data set")
    add("-c", dest="configurations", nargs="+", required=True, metavar="CONFIG")
    add(
        "-tr", dest="trainers", nargs="+", metavar="TRAINER",
        default=["SemiBaselineTrainer", "SemiMeanTeacherTrainer"], help=default,
    )  # fmt: skip
    add("-p", dest="plans", default="nnUNetPlans", help=default)
    add("-f", dest="folds", nargs="+", default=["0", "1", "2", "3", "4"], help=default)
    add("--seeds", type=int, default=1, help=f"how many ({default})")
    add("--device", help="cpu, cuda or mps (default: cuda if there is one)")
    add("--jobs", type=int, help="at a time (default: one for each GPU; 1 on the CPU)")
    add("--npz", action="store_true", help="keep probabilities, for semi_nnunet ensemble")
    add("--launcher", choices=["local", "slurm"], default="local", help=default)
    add("--sbatch", default="", metavar="OPTIONS", help="options of sbatch (slurm only)")
    add("--only", type=int, help=argparse.SUPPRESS)  # the job of a task of the array


def run(args: argparse.Namespace) -> int:
    from semi_nnunet.errors import UserError
    from semi_nnunet.runs.commands import ended_like_ctrl_c
    from semi_nnunet.runs.crossval import folders_of, make_jobs
    from semi_nnunet.runs.local import run_jobs

    if args.seeds < 1 or (args.jobs is not None and args.jobs < 1):
        raise UserError("--seeds and --jobs must be 1 or more. Fix: correct them")
    folders = folders_of(args.dataset)
    jobs = make_jobs(
        folders,
        args.plans,
        args.configurations,
        args.trainers,
        args.folds,
        args.seeds,
        args.npz,
    )
    if args.launcher == "slurm":
        submit_to_slurm(args, folders, jobs)
        return 0
    resources = find_resources(args.device, args.jobs)
    if args.only is not None:
        jobs = [jobs[args.only]]
    name, before = folders.results.name, sum(job.is_done for job in jobs)
    places = f"GPUs {', '.join(resources.gpus)}" if resources.gpus else resources.device
    print(f"{name}: {len(jobs)} jobs, {before} done before; on {places}", flush=True)
    with ended_like_ctrl_c():
        outcomes = run_jobs(jobs, resources)
    left = [outcome for outcome in outcomes if outcome.state in ("failed", "elsewhere")]
    if left:
        print(f"{len(left)} of {len(jobs)} jobs are not done; run the same command again to go on:")
        for outcome in left:
            print(f"  {outcome.job}: {outcome.state}, see {outcome.job.log}")
        return 1
    plans = "" if args.plans == "nnUNetPlans" else f" -p {args.plans}"
    print(f"all done; next: semi_nnunet compare -d {args.dataset}{plans}")
    return 0


def submit_to_slurm(args: argparse.Namespace, folders: Folders, jobs: Sequence[Job]) -> None:
    """A task for every job that is left."""
    from semi_nnunet.runs.slurm import batch_script, submit

    left = [index for index, job in enumerate(jobs) if not job.is_done]
    if not left:
        print(f"all {len(jobs)} jobs are done; next: semi_nnunet compare -d {args.dataset}")
        return
    words = ["crossval", "-d", args.dataset, "-p", args.plans]
    words += ["--seeds", str(args.seeds), "--jobs", "1"]
    words += ["-c", *args.configurations, "-tr", *args.trainers, "-f", *args.folds]
    words += ["--device", args.device] if args.device else []
    words += ["--npz"] if args.npz else []
    logs = folders.results / "semi_crossval"
    script = batch_script(words, left, args.jobs or len(left), logs, args.sbatch)
    number = submit(script, logs / "array.sh")
    print(f"submitted {len(left)} of {len(jobs)} jobs as array {number}, logs in {logs}")
    print(f"next: squeue -j {number}; semi_nnunet status -d {args.dataset} -p {args.plans}")


def find_resources(device: str | None, jobs: int | None) -> Resources:
    """What there is to compute with.

    Raises:
        UserError: the device is not there.
    """
    import torch

    from semi_nnunet.errors import UserError
    from semi_nnunet.runs.local import Resources

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if device != "cuda":
        jobs = jobs or 1
        return Resources(device, (), jobs, max(1, (cores or 1) // jobs))
    count = torch.cuda.device_count()
    if count == 0:
        raise UserError("--device cuda needs a GPU, found none. Fix: --device cpu")
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = tuple(chosen.split(",")) if chosen else tuple(map(str, range(count)))
    jobs = jobs or count
    return Resources(device, gpus, jobs, max(1, (cores or 1) // jobs))
