"""Verify, plan and preprocess a data set with its unlabelled images in imagesUn.

    semi_nnunet preprocess -d 42
    semi_nnunet preprocess -d 42 -c 2d 3d_fullres -np 4 --skip-bad

Runs nnU-Net's fingerprint, planning and preprocessing for imagesTr (what nnUNetv2_plan_and_preprocess has done is
kept), then preprocesses imagesUn with the same plans. It may be interrupted and run again: finished cases are kept.
"""

from __future__ import annotations

import argparse

from semi_nnunet.data.prepare import SKIPPED_FILE, prepare


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
        default="nnUNetPlans",
        metavar="PLANS",
        help="plans identifier (default: %(default)s)",
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
    ready = prepare(
        args.dataset,
        args.configurations,
        args.plans,
        args.planner,
        max(1, args.processes),
        args.skip_bad,
    )
    for configuration, (labelled, unlabelled) in ready.items():
        print(f"{configuration}: {labelled} labelled and {unlabelled} unlabelled cases are ready")
    plans = "" if args.plans == "nnUNetPlans" else f" -p {args.plans}"
    print(
        f"next: nnUNetv2_train {args.dataset} {next(iter(ready))} 0 -tr SemiMeanTeacherTrainer{plans}"
    )
