"""Average what trainers, configurations, folds and seeds predict, and measure whether it helps.

    semi_nnunet crossval -d 42 -c 2d 3d_fullres -tr SemiUnifiedTrainer SemiCPSTrainer --npz
    semi_nnunet ensemble -d 42 -tr SemiUnifiedTrainer SemiCPSTrainer -o together
    semi_nnunet ensemble -d 42 -tr SemiUnifiedTrainer -c 2d 3d_fullres --weights 1 2 -o weighted

The members are all trainings with the plans and their seeds that fit. nnU-Net averages their
probabilities: of imagesTs those of all members, of the validation cases those of the members of
their fold. Choose members and weights by the validation cases, not by the test.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add, default = parser.add_argument, "default: %(default)s"
    add("-d", dest="dataset", required=True, metavar="ID", help="number or name of the data set")
    add("-o", dest="out", type=Path, required=True, help="folder for test/ and validation/")
    add("-p", dest="plans", default="nnUNetPlans", help=default)
    add("-c", dest="configurations", nargs="+", metavar="CONFIG", help="default: all")
    add("-tr", dest="trainers", nargs="+", metavar="TRAINER", help="default: all")
    add("-f", dest="folds", nargs="+", metavar="FOLD", help="default: all that were trained")
    add("--seed", type=int, nargs="+", metavar="SEED", help="default: all that were trained")
    add(
        "--weights", nargs="+", metavar="N",
        help="how often each trainer with each configuration counts, or each of their folds and "
        "seeds (default: once)",
    )  # fmt: skip
    add("-np", dest="processes", type=int, default=2, help=f"processes ({default})")


def run(args: argparse.Namespace) -> None:
    from semi_nnunet.runs.ensemble import ensemble

    for made in ensemble(
        args.dataset, args.out, plans=args.plans, configurations=args.configurations,
        trainers=args.trainers, folds=args.folds, seeds=args.seed, weights=args.weights,
        processes=args.processes,
    ):  # fmt: skip
        print_members(made.subset, made.dice)


def print_members(subset: str, dice: Mapping[str, float | None]) -> None:
    """The Dice of each member beside the ensemble's."""
    if dice:
        print(f"\nmean Dice of the {subset} cases")
    for name, value in dice.items():
        print(f"  {name:<60}{'not measured' if value is None else f'{value:.4f}'}")
