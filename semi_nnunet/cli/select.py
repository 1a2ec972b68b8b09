"""Choose the unlabelled images to train on, by how sure trained models are of them (UIF).

    semi_nnunet select -d 42 -m Dataset042_Pancreas/MODEL --keep 0.5
    semi_nnunet select -d 42 -m MODEL OTHER_MODEL --score disagreement --keep 200
    semi_nnunet select -d 42 -m MODEL --score change --before LABELLED_BEFORE --keep 0.9
    semi_nnunet select -d 42 --undo

The models label imagesUn (semi_nnunet pseudo-label); the surest images are written down where every
trainer of ours reads it, a page shows the most certain, the least certain and those around the
threshold, and a table beside it has every case's score. Filtering within a training is a setting
instead (filter_epochs).

Scores, 0 the surest: entropy of the labels; disagreement of several models; change of the labels
over rounds (FLARE22's winner) and checkpoints (ST++), which compare with --before.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from semi_nnunet.cli import launching
    from semi_nnunet.settings.common import VIEWS

    add, default = parser.add_argument, "default: %(default)s"
    add("-d", dest="dataset", required=True, metavar="ID", help="the data set with imagesUn")
    add("-m", dest="models", nargs="+", metavar="MODEL", help="see semi_nnunet pseudo-label")
    add("--views", nargs="+", default=[], choices=VIEWS, metavar="VIEW", help=", ".join(VIEWS))
    add("--keep", type=float, default=0.5, help=f"fraction, or number above 1 ({default})")
    add_score_arguments(parser)
    add("--page", type=Path, default=Path("selection.html"), help=default)
    add("--undo", action="store_true", help="train on all images again")
    launching.add_device(parser)
    add("--jobs", type=int, help="processes that label (default: one for each GPU; 1 on the CPU)")


def add_score_arguments(parser: argparse.ArgumentParser) -> None:
    """By what the surest cases are chosen."""
    from semi_nnunet.settings.common import FILTER_SCORES

    add = parser.add_argument
    add("--most", type=float, metavar="U", help="the largest uncertainty to take (default: any)")
    add("--score", choices=FILTER_SCORES, default="entropy", help="default: %(default)s")
    add("--before", nargs="+", default=[], metavar="OUT", help="-o of pseudo-label, where earlier "
        "models or checkpoints labelled the same images, the oldest first")  # fmt: skip


def run(args: argparse.Namespace) -> None:
    from semi_nnunet.pseudo_labels.choice import Choice
    from semi_nnunet.pseudo_labels.select import select, select_all
    from semi_nnunet.runs.launching import Launcher

    if args.undo:
        select_all(args.dataset)
        print("trainings use all unlabelled images")
        return
    made = select(
        args.dataset, args.models or (),
        Choice(args.keep, args.most, args.score, tuple(args.before)),
        views=args.views, page=args.page, launcher=Launcher(device=args.device, jobs=args.jobs),
    )  # fmt: skip
    print(f"{len(made.kept)} of {made.total} unlabelled images are selected; see {made.page}, "
          f"{made.table}")  # fmt: skip
    print(f"trainings of {made.dataset} use these alone, until semi_nnunet select -d ... --undo")
