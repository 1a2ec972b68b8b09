"""Train, predict and measure trainers x configurations x folds x seeds, as many at once as fit.

    semi_nnunet crossval -d 42 -c 2d -tr SemiBaselineTrainer SemiUnifiedTrainer --seeds 3
    semi_nnunet crossval -d 42 -c 3d_lowres 3d_cascade_fullres -tr SemiUnifiedTrainer
    semi_nnunet compare -d 42

Every job is nnU-Net's own nnUNetv2_train (and nnUNetv2_predict of imagesTs, if there is one), then
semi_nnunet evaluate. Run it again to go on: what is done is skipped, also a fold trained by hand,
and what was killed continues. Folds split the labelled cases; the unlabelled ones serve all. Seed 0
uses the plans, the others plans of their own (PLANS_seed1, ...). One job runs on each GPU, or as
many as --jobs on the CPU. On a cluster:

    semi_nnunet crossval ... --launcher slurm --sbatch='--gres=gpu:1 --time=12:00:00'
    semi_nnunet crossval ... --launcher ray --ray-address HOST:6379

each job is a task: on SLURM, one whose time is up is requeued and continues; on Ray, one whose node
is lost continues on another.
"""

from __future__ import annotations

import argparse

from semi_nnunet.discovery.names import BASELINE, RECOMMENDED


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from semi_nnunet.cli import launching

    add, default = parser.add_argument, "default: %(default)s"
    add("-d", dest="dataset", required=True, metavar="ID", help="number or name of the data set")
    add("-c", dest="configurations", nargs="+", required=True, metavar="CONFIG")
    add(
        "-tr", dest="trainers", nargs="+", metavar="TRAINER",
        default=[BASELINE, RECOMMENDED], help=default,
    )  # fmt: skip
    add("-p", dest="plans", default="nnUNetPlans", help=default)
    add("-f", dest="folds", nargs="+", metavar="FOLD", help="default: those there are, 0 1 2 3 4")
    add("--seeds", type=int, default=1, help=f"how many ({default})")
    add("--npz", action="store_true", help="keep probabilities, for semi_nnunet ensemble")
    add(
        "--steps", nargs="+", metavar="STEP", default=["train", "predict", "evaluate"],
        help="of each job (default: train predict evaluate)",
    )  # fmt: skip
    launching.add_arguments(parser)


def run(args: argparse.Namespace) -> None:
    from semi_nnunet.runs.crossval import crossval
    from semi_nnunet.runs.launching import Launcher

    is_done = crossval(
        args.dataset, args.configurations, args.trainers, plans=args.plans, folds=args.folds,
        seeds=args.seeds, npz=args.npz, steps=args.steps, launcher=Launcher.of(vars(args)),
    )  # fmt: skip
    if not is_done:
        return
    plans = "" if args.plans == "nnUNetPlans" else f" -p {args.plans}"
    if "evaluate" in args.steps:
        print(f"all done; next: semi_nnunet compare -d {args.dataset}{plans}")
    else:
        print(f"done: {', '.join(args.steps)}; next: the other steps")
