"""Show on a phantom data set that unlabelled images help.

    semi_nnunet demo
    semi_nnunet demo -o somewhere --keep          leave data and models there, to play with

Draws images of a synthetic abdomen, 4 labelled and 28 not, trains nnU-Net on the labelled ones
alone and Mean Teacher on all, and compares both on 10 test cases: a table, curves and overlays.
It takes about six minutes on two CPU cores and prints every command, so that you can do the same
with your data. Running it again replaces what it wrote.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        default=Path("semi_nnunet_demo"),
        metavar="DIR",
        help="where everything is written (default: ./%(default)s)",
    )
    parser.add_argument(
        "--device",
        "-device",
        choices=("cpu", "cuda", "mps"),
        default="cpu",
        help="default: %(default)s",
    )
    parser.add_argument(
        "--keep", action="store_true", help="do not remove data, models and predictions at the end"
    )


def run(args: argparse.Namespace) -> None:
    from semi_nnunet.demo.run import run_demo

    run_demo(args.out, args.device, args.keep)
