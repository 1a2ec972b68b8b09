"""Label images that nobody labelled, with trained models: as many as there are, on any machine.

    semi_nnunet pseudo-label -i images -o labelled -m Dataset042_Pancreas/MODEL --jobs 2
    semi_nnunet pseudo-label -i images -o labelled -m MODEL OTHER_MODEL --views flips rot90 gamma
    semi_nnunet pseudo-label ... --launcher slurm --shards 100 --sbatch='--gres=gpu:1'
    semi_nnunet pseudo-label ... --launcher ray --shards 100

A MODEL is a folder TRAINER__PLANS__CONFIGURATION below nnUNet_results, of our trainers or
nnU-Net's, or a fold in it; a cascade's second stage sees the labels of its first, which is looked
for beside it. Folds and views are averaged as logits, models as probabilities, as nnU-Net does:
without --views this is nnUNetv2_predict --disable_tta, with "flips" its default. Each
shard of the pool is a process. Run it again to go on: what is killed costs its current case. A bad
image is set aside and named; the others go on. uncertainty.csv says how unsure the models are of
each image, the most certain first.
"""

from __future__ import annotations

import argparse
from pathlib import Path

CONFIDENCE = "voxels whose label is less probable get nnU-Net's ignore label (default: none does)"

COMPLETE = (
    "folder of labels of some of the images, which annotate some classes, as dataset.json beside "
    "it or of the model tells: these stay, the model labels the others"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from semi_nnunet.cli import launching
    from semi_nnunet.settings.common import VIEWS

    add = parser.add_argument
    add("-i", dest="images", type=Path, required=True, help="folder of CASE_0000.ending files")
    add("-o", dest="out", type=Path, required=True, help="folder for labels/ and the lists")
    add("-m", dest="models", nargs="+", required=True, metavar="MODEL", help="see above")
    add("--views", nargs="+", default=[], choices=VIEWS, metavar="VIEW", help=", ".join(VIEWS))
    add("--confidence", type=float, default=0.0, metavar="P", help=CONFIDENCE)
    add("--npz", action="store_true", help="keep the probabilities")
    add("--complete", type=Path, metavar="LABELS", help=COMPLETE)
    add("--shards", "--parts", type=int, help="into which the pool is cut (default: --jobs)")
    add("--worker", action="store_true", help=argparse.SUPPRESS)  # the process that labels a shard
    launching.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from semi_nnunet.pseudo_labels.label import label_shard, pseudo_label, request_of
    from semi_nnunet.runs.launching import Launcher

    what = (args.images, args.out, args.models)
    how = {"views": args.views, "confidence": args.confidence, "npz": args.npz}
    how["complete"] = args.complete
    if args.worker:
        label_shard(request_of(*what, **how), args.only, args.shards, args.device)
        return 0
    labelled = pseudo_label(*what, **how, shards=args.shards, launcher=Launcher.of(vars(args)))
    return 1 if labelled is not None and not labelled.cases else 0
