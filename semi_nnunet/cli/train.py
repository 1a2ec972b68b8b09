"""Train one fold as nnUNetv2_train does, after a look at all that would stop it later.

    semi_nnunet train 42 3d_fullres 0
    semi_nnunet train 42 3d_fullres 0 -tr SemiCPSTrainer --c
    semi_nnunet train 42 2d all -tr nnUNetTrainer -device cpu
    torchrun --nproc_per_node 4 -m semi_nnunet train 42 3d_fullres 0 --c

Takes the words of nnUNetv2_train, trains with nnU-Net's own entry point in this process, and needs
no semi_nnunet register. What is missing or wrong is told in a line with its fix, before anything is
written: names of trainers, plans, configurations and folds, data that are not preprocessed, a GPU
that is not there, weights that hold a program.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from semi_nnunet.discovery.names import RECOMMENDED


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from semi_nnunet.cli import launching

    add, default = parser.add_argument, "default: %(default)s"
    add("dataset", metavar="ID", help="number or name of the data set")
    add("configuration", metavar="CONFIG", help="such as 3d_fullres")
    add("fold", metavar="FOLD", help="a number, or all")
    add("-tr", dest="trainer", default=RECOMMENDED, metavar="TRAINER", help=default)
    add("-p", dest="plans", default="nnUNetPlans", help=default)
    add("-pretrained_weights", type=Path, metavar="FILE", help="checkpoint to start from")
    add("-num_gpus", dest="gpus", type=int, default=1, help=f"that train together ({default})")
    add("--npz", action="store_true", help="keep probabilities of the validation cases")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--c", dest="resume", action="store_true", help="go on from a checkpoint")
    how.add_argument(
        "--val", dest="validate_only", action="store_true", help="validate what is trained"
    )
    launching.add_device(parser)


def run(args: argparse.Namespace) -> None:
    from semi_nnunet.runs.next_step import device_option
    from semi_nnunet.runs.process_group import is_first
    from semi_nnunet.runs.train import train
    from semi_nnunet.util.command import typed

    folder = train(
        args.dataset, args.configuration, args.fold, args.trainer, plans=args.plans,
        resume=args.resume, validate_only=args.validate_only, device=args.device, gpus=args.gpus,
        npz=args.npz, pretrained_weights=args.pretrained_weights,
    )  # fmt: skip
    if not is_first():
        return
    model = ["-d", args.dataset, "-c", args.configuration, "-f", args.fold, "-tr", args.trainer]
    model += [] if args.plans == "nnUNetPlans" else ["-p", args.plans]
    words = ("nnUNetv2_predict", *model, "-i", "IMAGES", "-o", "PREDICTIONS")
    print(f"{folder} is trained\nnext: {typed((*words, *device_option(args.device)))}")
