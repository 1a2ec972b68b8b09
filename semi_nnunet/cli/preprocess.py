"""Verify, plan and preprocess a data set with its unlabelled images in imagesUn.

    semi_nnunet preprocess -d 42
    semi_nnunet preprocess -d 42 -c 2d 3d_fullres -np 4 --skip-bad

Runs nnU-Net's fingerprint, planning and preprocessing for imagesTr (what its own command
nnUNetv2_plan_and_preprocess has done is kept), then preprocesses imagesUn with the same plans.
It may be interrupted and run again: finished cases are kept.

Unlabelled images that differ much from the labelled ones in spacing, size, orientation or
intensities are named, and shown in the folder domain_check of the preprocessed data set. They are
used, unless --skip-outliers sets them aside. Where they are meant to be of another kind, write
"unlabelled_domain": "other" in dataset.json.

A large imagesUn can be cut into shards, each a job, here or on a cluster:

    semi_nnunet preprocess -d 42 --shards 8 --jobs 2 -np 4
    semi_nnunet preprocess -d 42 --launcher slurm --shards 100 --sbatch='--cpus-per-task=4'
    semi_nnunet preprocess -d 42 --launcher ray --shards 100 --threads 4

The launching process verifies all images and does the rest; semi_nnunet doctor counts what is done.
"""

from __future__ import annotations

import argparse

from semi_nnunet.data.layout import SKIPPED_FILE


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
        help="worker processes (default: one for each core, up to 8; of each shard: its cores)",
    )
    parser.add_argument(
        "--skip-bad",
        action="store_true",
        help=f"set bad unlabelled cases aside (listed in {SKIPPED_FILE}) and go on",
    )
    parser.add_argument(
        "--skip-outliers",
        action="store_true",
        help="set unlabelled cases aside that differ much from the labelled ones",
    )
    parser.add_argument(
        "--shards",
        "--parts",  # its name in version 0.2
        type=int,
        help="into which imagesUn is cut (default: --jobs; without these and --launcher: none)",
    )
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)  # does a shard
    launching.add_arguments(parser, on_cpu=True)


def run(args: argparse.Namespace) -> None:
    from semi_nnunet.runs.launching import Launcher
    from semi_nnunet.runs.next_step import to_train
    from semi_nnunet.runs.prepare import list_shards, prepare, prepare_shard, work_on

    launcher = Launcher.of(vars(args))
    if args.only is not None:  # a process of a cluster, or the worker that it starts
        shards = list_shards(
            args.dataset, args.plans, args.configurations, args.shards, args.processes
        )
        if args.worker:
            work_on(shards[args.only], args.processes)
        else:
            prepare_shard(shards, launcher)
        return
    ready = prepare(
        args.dataset, args.configurations, plans=args.plans, planner=args.planner,
        processes=args.processes, skip_bad=args.skip_bad, skip_outliers=args.skip_outliers,
        shards=args.shards, launcher=launcher,
    )  # fmt: skip
    if ready is None:
        return
    for configuration, (labelled, unlabelled) in ready.counts.items():
        print(f"{configuration}: {labelled} labelled and {unlabelled} unlabelled cases are ready")
    configuration, (labelled, _) = next(iter(ready.counts.items()))
    fold = "0" if labelled > 1 else "all"  # a single case cannot be validated on
    first, *others = to_train(args.dataset, ready.plans, configuration, fold)
    if others:
        first = f"as there is no GPU: {first}"
    print(f"next{',' if others else ':'} {first}", *(f"      {one}" for one in others), sep="\n")
