"""Find out which mirrored images are worth their time when a model predicts.

    semi_nnunet tune -m Dataset042_Pancreas/MODEL
    semi_nnunet tune -m MODEL -f 0 --lose 0.2

nnU-Net averages over images that are mirrored along all axes: 8 passes of the network in 3-D. Every
set of axes predicts the validation cases of each fold, and the one with the fewest passes is taken
whose Dice is at most --lose points below that of all axes. It is written into the folder of the
model, where semi_nnunet predict and semi_nnunet package find it; predict --mirror and --exact take
all axes. Fold all has no validation cases, and takes what the other folds have chosen.
"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from semi_nnunet.cli.launching import add_device

    add, default = parser.add_argument, "default: %(default)s"
    add("-m", dest="model", required=True, help="folder TRAINER__PLANS__CONFIG that was trained")
    add("-f", dest="folds", nargs="+", metavar="FOLD", help="numbers (default: all that it has)")
    add("--lose", type=float, default=0.1, metavar="POINTS", help=f"of Dice ({default})")
    add_device(parser)


def run(args: argparse.Namespace) -> None:
    from semi_nnunet.inference.tuning import tune

    choice = tune(args.model, folds=args.folds, lose=args.lose / 100, device=args.device)
    axes = " ".join(map(str, choice.axes))
    print(f"mirrored from now on: {f'axes {axes}' if axes else 'nothing'}, as {choice.cases} "
          f"validation cases say")  # fmt: skip
