"""Write one HTML file that says whether the methods help, and shows what went wrong where.

    semi_nnunet report -d 42
    semi_nnunet report -d 42 -p nnUNetPlans_cpu --baseline nnUNetTrainer -o report.html
    semi_nnunet report --values here.csv there.csv

Looks at what was trained with the plans (and their seeds) in nnUNet_results: the answer first, then
methods and classes, every case, the worst, median and best case as pictures, the curves of every
training, the filtering of unlabelled images, plans and settings. Of files of semi_nnunet compare
--write-values, which need no trainings: the answer, methods and classes, and every case. Needs no
network to be read.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from semi_nnunet.discovery.names import BASELINE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add, default = parser.add_argument, "default: %(default)s"
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("-d", dest="dataset", metavar="ID", help="number or name of the data set")
    source.add_argument(
        "--values",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="of semi_nnunet compare --write-values, instead of trainings",
    )
    add("-p", dest="plans", default="nnUNetPlans", help=default)
    add("--baseline", default=BASELINE, metavar="TRAINER", help=default)
    add("--metric", default="dice", help=f"a column of metrics.csv ({default})")
    add("--choice", type=Path, metavar="FILE", help="choice.json of semi_nnunet auto: how the "
        "method was chosen")  # fmt: skip
    add("--efficiency", nargs="+", default=[], type=Path, metavar="FOLDER", help="that semi_nnunet "
        "efficiency wrote: what submissions cost")  # fmt: skip
    add("-o", dest="out", type=Path, default=Path("report.html"), help=default)


def run(args: argparse.Namespace) -> None:
    from semi_nnunet.report.write import write_report
    from semi_nnunet.util.errors import printable

    written = write_report(
        args.dataset, values=args.values or (), plans=args.plans, baseline=args.baseline,
        metric=args.metric, choice=args.choice, efficiency=args.efficiency, out=args.out,
    )  # fmt: skip
    print(*map(printable, (written.headline, *written.sentences)), sep="\n")
    print(f"wrote {written.path} ({written.size / 2**20:.1f} MB)")
