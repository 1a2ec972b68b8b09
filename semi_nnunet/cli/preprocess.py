"""Verify, plan and preprocess a data set with its unlabelled images in imagesUn.

    semi_nnunet preprocess -d 42
    semi_nnunet preprocess -d 42 -c 2d 3d_fullres -np 4 --skip-bad

Runs nnU-Net's fingerprint, planning and preprocessing for imagesTr (what its own command
nnUNetv2_plan_and_preprocess has done is kept), then preprocesses imagesUn with the same plans.
It may be interrupted and run again: finished cases are kept.

A large imagesUn can be cut into parts, each a job, here or on a cluster:

    semi_nnunet preprocess -d 42 --parts 8 --jobs 2 -np 4
    semi_nnunet preprocess -d 42 --launcher slurm --parts 100 --sbatch='--cpus-per-task=4'
    semi_nnunet preprocess -d 42 --launcher ray --parts 100 --threads 4

The launching process verifies all images and does the rest; semi_nnunet doctor counts what is done.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from typing import TYPE_CHECKING

from semi_nnunet.data.layout import SKIPPED_FILE, preprocessed_dataset, read_plans

if TYPE_CHECKING:
    from semi_nnunet.cli.launching import Launcher
    from semi_nnunet.data.unlabelled_shards import UnlabelledShard

PROCESSES = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from semi_nnunet.cli import launching

    parser.add_argument(
        "-d", dest="dataset", required=True, metavar="ID", help="number or name of the data set"
    )
    parser.add_argument(
        "-c", dest="configurations", nargs="+", metavar="CONFIG", help="default: all of the plans"
    )
    parser.add_argument(
        "-p",
        dest="plans",
        metavar="PLANS",
        help="plans identifier (default: the planner's, nnUNetPlans)",
    )
    parser.add_argument(
        "-pl",
        dest="planner",
        default="ExperimentPlanner",
        help="nnU-Net planner, where there are no plans yet (default: %(default)s)",
    )
    parser.add_argument(
        "-np",
        dest="processes",
        type=int,
        metavar="N",
        help="worker processes (default: 8; of each part: its cores)",
    )
    parser.add_argument(
        "--skip-bad",
        action="store_true",
        help=f"set bad unlabelled cases aside (listed in {SKIPPED_FILE}) and go on",
    )
    parser.add_argument(
        "--parts",
        type=int,
        help="into which imagesUn is cut (default: --jobs; without these and --launcher: none)",
    )
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)  # does a part
    launching.add_arguments(parser, on_cpu=True)


def run(args: argparse.Namespace) -> int:
    from semi_nnunet.cli.launching import Launcher, require_positive
    from semi_nnunet.data.prepare import default_plans_name, prepare

    require_positive(args, "parts", "processes")
    launcher, count = Launcher.of(args), args.parts or args.jobs
    if count is None and launcher.launcher != "local":
        count = 1
    plans = args.plans or default_plans_name(args.planner)
    if launcher.only is not None:
        return run_only(args, launcher)
    if count is not None:
        ready, code = prepare_in_parts(args, launcher, plans, count)
        if code is not None:
            return code
    else:
        processes = args.processes or PROCESSES
        ready = prepare(
            args.dataset, args.configurations, plans, args.planner, processes, args.skip_bad
        )
    for configuration, (labelled, unlabelled) in ready.items():
        print(f"{configuration}: {labelled} labelled and {unlabelled} unlabelled cases are ready")
    say_next(args.dataset, plans, next(iter(ready)))
    return 0


def say_next(dataset: str, plans: str, configuration: str) -> None:
    """Print the command that trains."""
    import torch

    option = "" if plans == "nnUNetPlans" else f" -p {plans}"
    train = f"nnUNetv2_train {dataset} {configuration} 0 -tr SemiMeanTeacherTrainer"
    has_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    planned = "semi_planned" in read_plans(preprocessed_dataset(dataset), plans)
    if has_gpu or planned:
        other = " -device mps" if has_gpu else " -device cpu"
        print(f"next: {train}{option}{'' if torch.cuda.is_available() else other}")
        return
    print(f"next, as there is no GPU: semi_nnunet plan -d {dataset}{option} --budget cpu")
    print(f"      {train} -p {plans}_cpu -device cpu")


def prepare_in_parts(
    args: argparse.Namespace, launcher: Launcher, plans: str, count: int
) -> tuple[dict[str, tuple[int, int]], int | None]:
    """Do all but the unlabelled cases here, and launch the parts of these.

    Returns:
        configuration -> (labelled cases, unlabelled cases), and the exit code to end with, if any.
    """
    from semi_nnunet.cli.launching import Work, launch
    from semi_nnunet.data.prepare import prepare_labelled
    from semi_nnunet.data.unlabelled_shards import shards_left

    prepared = prepare_labelled(
        args.dataset, args.configurations, plans, args.planner, args.processes or PROCESSES,
        args.skip_bad,
    )  # fmt: skip
    left = []
    for number, pool in enumerate(prepared.pools()):
        pool.begin(prepared.unlabelled)
        todo = shards_left(pool, prepared.unlabelled, count)
        left += [number * count + part for part in todo]
    configurations = prepared.configurations
    print(f"{len(prepared.unlabelled)} unlabelled cases, {len(left)} parts to do", flush=True)
    words = ["preprocess", "-d", prepared.preprocessed.name, "-p", plans, "-c", *configurations]
    words += ["--parts", str(count)]
    words += ["-np", str(args.processes)] if args.processes else []
    parts = list_parts(prepared.preprocessed.name, plans, configurations, count, args.processes)
    logs = prepared.pools()[0].parts
    return prepared.counts(), launch(launcher, Work(words, parts, left, logs))


def list_parts(
    dataset: str, plans: str, configurations: list[str], count: int, processes: int | None
) -> list[UnlabelledShard]:
    """The jobs: ``count`` parts of each configuration."""
    from semi_nnunet.data.unlabelled_shards import UnlabelledPool, UnlabelledShard

    return [
        UnlabelledShard(pool, number, count, processes)
        for name in configurations
        for pool in [UnlabelledPool(preprocessed_dataset(dataset), plans, name)]
        for number in range(count)
    ]


def run_only(args: argparse.Namespace, launcher: Launcher) -> int | None:
    """One part: a process of a cluster holds its lock, and starts the worker."""
    from semi_nnunet.cli.launching import Work, launch

    parts = list_parts(args.dataset, args.plans, args.configurations, args.parts, args.processes)
    if args.worker:
        processes = args.processes or multiprocessing.cpu_count()
        if processes > 1:
            os.environ["OMP_NUM_THREADS"] = "1"  # of each of them
        parts[args.only].run(processes)
        return 0
    return launch(launcher, Work([], parts, [], parts[0].folder))
