"""Measure what a training step costs on this machine: time, operations, loading, memory.

    semi_nnunet benchmark -d 42 -c 3d_fullres
    semi_nnunet benchmark -d 42 -c 2d -p nnUNetPlans_cpu -tr SemiUnifiedTrainer -o costs.json

Every trainer of ours and nnU-Net's own have a step in turn, --rounds times, on patches of the data
set, in one process; the median counts, and between what half of the steps lay is told. The
unlabelled terms count in full from the first step on. "/ its passes" is the step over the time that
its floating-point operations take at the speed of the baseline's forward and backward pass: what is
above 1 goes into anything but the networks. Patches a second are labelled and unlabelled ones
together. Loading and memory are measured in a process for each
trainer: seconds a batch that nnUNet_n_proc_DA processes load, which hides behind the step if it is
shorter; memory above what the process had before its first step, of the GPU all of it. The
seconds are kept in the data set's results, where semi_nnunet auto finds them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add, default = parser.add_argument, "default: %(default)s"
    add("-d", dest="dataset", required=True, metavar="ID", help="number or name of the data set")
    add("-c", dest="configuration", required=True, metavar="CONFIG", help="such as 3d_fullres")
    add("-p", dest="plans", default="nnUNetPlans", metavar="PLANS", help=default)
    add(
        "-tr", dest="trainers", nargs="+", metavar="TRAINER",
        help="default: all of ours, and nnUNetTrainer",
    )  # fmt: skip
    add("--device", "-device", choices=("cpu", "cuda"), help="default: cuda if there is one")
    add("--threads", type=int, metavar="N", help="of the CPU (default: this machine's cores)")
    add("--rounds", type=int, default=9, help=default)
    add("--quick", action="store_true", help="seconds alone: no memory, no operations")
    add("-o", dest="out", type=Path, metavar="FILE", help="new file, JSON, for all that is told")


def run(args: argparse.Namespace) -> int:
    from semi_nnunet.benchmarking.page import lines
    from semi_nnunet.benchmarking.run import benchmark
    from semi_nnunet.util.errors import printable

    measured = benchmark(
        args.dataset, args.configuration, plans=args.plans, trainers=args.trainers,
        device=args.device, threads=args.threads, rounds=args.rounds, quick=args.quick,
        out=args.out, say=lambda line: print(printable(line), file=sys.stderr),
    )  # fmt: skip
    print(*map(printable, lines(measured)), sep="\n")
    return 1 if measured.refused else 0
