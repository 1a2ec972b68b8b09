"""Go from a raw data set to the best model and its proof, in one command and a budget of hours.

    semi_nnunet auto -d 42 --hours 8
    semi_nnunet auto -d 42 --hours 8 --dry-run
    semi_nnunet auto -d 42 -c 3d_fullres -tr SemiUnifiedTrainer SemiCPSTrainer

Verifies, plans and preprocesses, times a few steps of every candidate on this device, unless a
semi_nnunet benchmark of it is there, and says how it divides the hours. All candidates, with the
supervised baseline among them, train briefly, the better half twice as long, the best one and the
baseline four times as long. Other cases than those that chose the method prove it: labelled test
cases, or the validation cases of other folds. It ships if it is better than the baseline beyond
chance, else the baseline does. The folder auto_NAME then has the exported model for stock nnU-Net,
the predictions of imagesTs, the report, and a README.md that begins with the answer. Every step is
a command that is printed and could be typed. Interrupted at any moment, the same command goes on;
--hours counts over restarts.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from semi_nnunet.cli import launching

    add, default = parser.add_argument, "default: %(default)s"
    add("-d", dest="dataset", required=True, metavar="ID", help="number or name of the data set")
    add("--hours", type=float, default=8.0, help=f"to spend ({default})")
    add(
        "-c", dest="configuration", metavar="CONFIG",
        help="default: 3d_fullres for volumes on a GPU, else 2d",
    )  # fmt: skip
    add(
        "-tr", dest="trainers", nargs="+", metavar="TRAINER",
        help="candidates, the most promising first (default: the unified method, Mean "
        "Teacher, MixMatch and distillation)",
    )  # fmt: skip
    add("-o", dest="out", type=Path, metavar="DIR", help="for what ships (default: auto_NAME)")
    add("--dry-run", action="store_true", help="print the table and the commands")
    launching.add_arguments(parser)


def run(args: argparse.Namespace) -> None:
    from semi_nnunet.automatic.run import CANDIDATES, auto
    from semi_nnunet.runs.launching import Launcher

    shipped = auto(
        args.dataset, hours=args.hours, configuration=args.configuration,
        trainers=args.trainers or CANDIDATES, launcher=Launcher.of(vars(args)), out=args.out,
        dry_run=args.dry_run,
    )  # fmt: skip
    if shipped is not None:
        print(f"\n{shipped.answer}\n{shipped.trainer} is in {shipped.folder}")
