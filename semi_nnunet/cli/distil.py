"""Make a data set of labelled and pseudo-labelled cases, that any trainer can train on; train it.

    semi_nnunet distil -d 42 -o 142 -m Dataset042_Pancreas/MODEL --views flips gamma
    semi_nnunet distil -d 42 -o 142 -m MODEL OTHER_MODEL --score disagreement --keep 0.5
    semi_nnunet distil -d 42 -o 142 -m MODEL --confidence 0.8
    semi_nnunet distil -d 42 -o 142 -m MODEL --target SemiBaselineTrainer
    semi_nnunet distil -d 42 -o 142 -m MODEL --target nnUNetTrainer --rounds 2 --keep 0.5 1

The models label imagesUn (semi_nnunet pseudo-label): one model with several views is data
distillation, several models are model distillation. The surest cases become training cases of the
new data set, in no validation fold (the source's folds are taken over); the others stay unlabelled.
Voxels below --confidence get nnU-Net's ignore label.

With --target, that trainer is then trained, with the plans and the configuration of the first base
or others (of a cascade, both stages), and measured on imagesTs. With --rounds, all its folds and
seeds label imagesUn anew, for a target that starts from scratch: data sets 142, 143, ... Always the
labels of -d and its whole imagesUn are started from. --score change and checkpoints compare with
the rounds before; the first takes all if there is no --before. The commands are printed as they
could be typed. Run it again to go on.

Pseudo labels of a model that was trained on a fold's validation cases make that validation
optimistic, and so do all folds of a target together: compare such trainings on imagesTs.
"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from semi_nnunet.cli import launching
    from semi_nnunet.cli.pseudo_label import CONFIDENCE
    from semi_nnunet.cli.select import add_score_arguments
    from semi_nnunet.settings.common import VIEWS

    add, default = parser.add_argument, "default: %(default)s"
    add("-d", dest="dataset", required=True, metavar="ID", help="the data set with imagesUn")
    add("-o", dest="new_id", type=int, required=True, metavar="NEW_ID", help="of the new one")
    add("--name", help="of the new one (default: the old name and Distilled)")
    add("-m", "--base", dest="base", nargs="+", required=True, metavar="MODEL", help="see "
        "semi_nnunet pseudo-label")  # fmt: skip
    add("--views", nargs="+", default=[], choices=VIEWS, metavar="VIEW", help=", ".join(VIEWS))
    add("--keep", nargs="+", type=float, default=[1.0], metavar="K", help="fraction, or number "
        "above 1, of the cases: the surest; one value, or one for each round: ST++ takes half, "
        "then all (default: 1)")  # fmt: skip
    add_score_arguments(parser)
    add("--confidence", type=float, default=0.0, metavar="P", help=CONFIDENCE)
    add("--complete", action="store_true", help="also label what labelled cases do not annotate "
        "('annotated' in dataset.json); these cases are then in no validation")  # fmt: skip
    add("--target", metavar="TRAINER", help="train it on the new data set (default: none)")
    add("--target-plans", metavar="PLANS", help="of -d or of a base, taken over by the new data "
        "set (default: the first base's with --target; else it is planned anew)")  # fmt: skip
    add("--target-configuration", metavar="CONFIG", help="default: the first base's")
    add("--rounds", type=int, default=1, help=f"of labelling and training ({default})")
    add("-f", dest="folds", nargs="+", metavar="FOLD", help="of the target (default: every fold)")
    add("--seeds", type=int, default=1, help=f"of the target, how many ({default})")
    add("--dry-run", action="store_true", help="print the commands")
    launching.add_device(parser)
    add("--jobs", type=int, help="at a time (default: one for each GPU; 1 on the CPU)")
    add("-np", dest="processes", type=int, default=2, help=f"that check the files ({default})")
    add("--skip-bad", action="store_true", help="leave bad unlabelled images out")
    add("--symlink", action="store_true", help="link to the files instead of copying them")


def run(args: argparse.Namespace) -> None:
    from dataclasses import fields

    from semi_nnunet.pseudo_labels.distillation import Distillation, distil
    from semi_nnunet.util.command import typed

    how = {one.name: getattr(args, one.name) for one in fields(Distillation)}
    made = distil(args.dataset, args.new_id, args.base, Distillation(**how))
    for name, dice in made.dice.items():
        print(f"{name}: Dice of imagesTs {dice:.4f}")
    if made.following:
        counts = f"{made.labelled} labelled and {made.pseudo_labelled} pseudo-labelled cases"
        print(f"{made.folders[0]}: {counts}")
        for before, words in zip(("next: ", "      "), made.following, strict=True):
            print(f"{before}{typed(words)}")
