"""Verify, plan and preprocess a data set with its unlabelled images in imagesUn.

    semi_nnunet preprocess -d 42
    semi_nnunet preprocess -d 42 -c 2d 3d_fullres -np 4 --skip-bad

Runs nnU-Net's fingerprint, planning and preprocessing for imagesTr (what its own command
nnUNetv2_plan_and_preprocess has done is kept), then preprocesses imagesUn with the same plans.
It may be interrupted and run again: finished cases are kept.
"""

from __future__ import annotations

import argparse

from semi_nnunet.data.layout import SKIPPED_FILE, preprocessed_dataset, read_plans


def add_arguments(parser: argparse.ArgumentParser) -> None:
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
        default=8,
        metavar="N",
        help="worker processes (default: %(default)s)",
    )
    parser.add_argument(
        "--skip-bad",
        action="store_true",
        help=f"set bad unlabelled cases aside (listed in {SKIPPED_FILE}) and go on",
    )


def run(args: argparse.Namespace) -> None:
    import torch

    from semi_nnunet.data.prepare import default_plans_name, prepare

    plans = args.plans or default_plans_name(args.planner)
    processes = max(1, args.processes)
    ready = prepare(
        args.dataset, args.configurations, plans, args.planner, processes, args.skip_bad
    )
    for configuration, (labelled, unlabelled) in ready.items():
        print(f"{configuration}: {labelled} labelled and {unlabelled} unlabelled cases are ready")
    option = "" if plans == "nnUNetPlans" else f" -p {plans}"
    configuration = next(iter(ready))
    train = f"nnUNetv2_train {args.dataset} {configuration} 0 -tr SemiMeanTeacherTrainer"
    has_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    planned = "semi_planned" in read_plans(preprocessed_dataset(args.dataset), plans)
    if has_gpu or planned:
        other = " -device mps" if has_gpu else " -device cpu"
        print(f"next: {train}{option}{'' if torch.cuda.is_available() else other}")
        return
    print(f"next, as there is no GPU: semi_nnunet plan -d {args.dataset}{option} --budget cpu")
    print(f"      {train} -p {plans}_cpu -device cpu")
