"""Say whether trainers are better than the baseline: paired case by case, over folds and seeds.

    semi_nnunet compare -d 42
    semi_nnunet compare -d 42 --metric nsd_surfel_2mm --baseline nnUNetTrainer
    semi_nnunet compare -d 42 --write-values here.csv
    semi_nnunet compare --values here.csv there.csv

Looks at what was trained with the plans (and their seeds) in nnUNet_results. A case's difference is
the mean over its classes, and over the folds and seeds that predicted it; cases of one patient
count as one, if dataset.json tells patients. The mean comes with a bootstrap interval (95 %) over
cases and, where there are several, seeds, and Wilcoxon's test of the cases, corrected for the
number of trainers, and, of single classes, of trainers x classes (Holm). "better" needs both. Where
a training invents a class that a case does not show, those that find nothing there count as
perfect. Trainings whose steps, batches, labelled cases or other common settings differ from their
baseline's are named, and those of one trainer that are not alike; of --values, which come from
elsewhere, nothing is known but the numbers. The best model is chosen on validation cases alone,
never on imagesTs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from semi_nnunet.discovery.names import BASELINE

PLANS = "nnUNetPlans"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add, default = parser.add_argument, "default: %(default)s"
    add("-d", dest="dataset", metavar="ID", help="number or name of the data set")
    add("-p", dest="plans", default=PLANS, help=default)
    add("-c", dest="configurations", nargs="+", metavar="CONFIG", help="only these")
    add("-tr", dest="trainers", nargs="+", metavar="TRAINER", help="only these and the baseline")
    add("--baseline", default=BASELINE, metavar="TRAINER", help=default)
    add("--metric", default="dice", help=f"a column of metrics.csv ({default})")
    add("-o", dest="out", type=Path, help="also write the tables there, as Markdown")
    add(
        "--values",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="compare what these files of --write-values hold, too, or, without -d, alone",
    )
    add("--write-values", type=Path, metavar="FILE", help="write every value compared to this CSV")


def run(args: argparse.Namespace) -> None:
    from semi_nnunet.runs.compare import NothingToCompareError, compare
    from semi_nnunet.util.errors import printable

    try:
        text = compare(
            args.dataset, plans=args.plans, configurations=args.configurations,
            trainers=args.trainers, baseline=args.baseline, metric=args.metric,
            values=args.values, out=args.out, write_values_to=args.write_values,
        )  # fmt: skip
    except NothingToCompareError as error:
        print(printable("\n".join(error.notes)))
        raise
    print(printable(text), end="")
