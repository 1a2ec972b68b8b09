"""Distil a trained model into a small, fast network for the same images.

    semi_nnunet slim -m Dataset042_X/SemiUnifiedTrainer__nnUNetPlans__3d_fullres
    semi_nnunet slim -m MODEL --seconds 5 -device cpu
    semi_nnunet slim -m MODEL --share 0.05 -f 0 --set epochs=300
    semi_nnunet slim -m MODEL --plan-only

Networks with fewer features and stages are compared by their operations, and on this device by the
time that the median image takes; the largest one is taken that has at most --share of the model's
operations and takes at most --seconds. Plans are written (nnUNetPlans_slim), in which the model
teaches that network on labelled and unlabelled images (SemiDistillationTrainer), each fold by the
model of the same fold. It is trained, and compared with the model on validation cases, or with fold
all on test cases. Patch and spacing stay; images that are to be coarser get labels by semi_nnunet
distil and plans by semi_nnunet plan --spacing. The same command goes on where it was interrupted.
"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from semi_nnunet.cli import launching

    add, default = parser.add_argument, "default: %(default)s"
    add("-m", dest="model", required=True, help="folder TRAINER__PLANS__CONFIG that was trained")
    add("-d", dest="dataset", metavar="ID", help="data set of the images and labels that it learns "
        "from (default: the model's)")  # fmt: skip
    add("-f", dest="folds", nargs="+", metavar="FOLD", help="default: all that the model has")
    add("--share", type=float, default=0.125, help=f"of the model's operations ({default})")
    add("--seconds", type=float, help="of the network for the median image (default: any)")
    add("--name", metavar="PLANS", help="of the new plans (default: those of the model and _slim)")
    add("--set", dest="settings", nargs="+", default=[], metavar="KEY=VALUE",
        help="settings of the training, as of semi_nnunet plan")  # fmt: skip
    add("--plan-only", action="store_true", help="write the plans, train nothing")
    launching.add_arguments(parser)


def run(args: argparse.Namespace) -> None:
    from semi_nnunet.runs.launching import Launcher
    from semi_nnunet.runs.slim import slim
    from semi_nnunet.util.errors import printable

    made = slim(
        args.model, dataset=args.dataset, folds=args.folds, share=args.share, seconds=args.seconds,
        name=args.name, settings=args.settings, plan_only=args.plan_only,
        launcher=Launcher.of(vars(args)), say=lambda text: print(printable(text)),
    )  # fmt: skip
    if made.told is not None:
        print(printable(made.told))
