"""Label images that nobody labelled, with trained models: as many as there are, on any machine.

    semi_nnunet pseudo-label -i images -o labelled -m Dataset042_Pancreas/MODEL --jobs 2
    semi_nnunet pseudo-label -i images -o labelled -m MODEL OTHER_MODEL --views flips rot90 gamma
    semi_nnunet pseudo-label ... --launcher slurm --parts 100 --sbatch='--gres=gpu:1'
    semi_nnunet pseudo-label ... --launcher ray --parts 100

A MODEL is a folder TRAINER__PLANS__CONFIGURATION below nnUNet_results, of our trainers or
nnU-Net's, or a fold in it; a cascade's second stage sees the labels of its first, which is looked
for beside it. Folds and views are averaged as logits, models as probabilities, as nnU-Net does:
without --views this is nnUNetv2_predict --disable_tta, with "flips" its default. Each
part of the pool is a process. Run it again to go on: what is killed costs its current case. A bad
image is set aside and named; the others go on. uncertainty.csv says how unsure the models are of
each image, the most certain first.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from semi_nnunet.cli.launching import Launcher
    from semi_nnunet.pseudo_labels.pool import Part, Request

CONFIDENCE = "voxels whose label is less probable get nnU-Net's ignore label (default: none does)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from semi_nnunet.cli import launching
    from semi_nnunet.pseudo_labels.test_time_augmentation import NAMES

    add = parser.add_argument
    add("-i", dest="images", type=Path, required=True, help="folder of CASE_0000.ending files")
    add("-o", dest="out", type=Path, required=True, help="folder for labels/ and the lists")
    add("-m", dest="models", nargs="+", required=True, metavar="MODEL", help="see above")
    add("--views", nargs="+", default=[], choices=NAMES, metavar="VIEW", help=", ".join(NAMES))
    add("--confidence", type=float, default=0.0, metavar="P", help=CONFIDENCE)
    add("--npz", action="store_true", help="keep the probabilities")
    add("--parts", type=int, help="into which the pool is cut (default: --jobs)")
    add("--worker", action="store_true", help=argparse.SUPPRESS)  # the process that labels a part
    launching.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from semi_nnunet.cli.launching import Launcher, require_positive
    from semi_nnunet.pseudo_labels.pool import Part, Request

    require_positive(args, "parts")
    launcher = Launcher.of(args)
    request = Request(
        args.images.absolute(),
        args.out.absolute(),
        tuple(os.path.abspath(name) if os.path.isdir(name) else name for name in args.models),
        tuple(args.views),
        args.confidence,
        args.npz,
    )
    require_confidence(args.confidence)
    if args.worker:
        label_part(Part(request, args.only, args.parts), args.device)
        return 0
    return label_pool(request, launcher, args.parts)


def require_confidence(confidence: float) -> None:
    """Check a probability.

    Raises:
        UserError: it is none.
    """
    from semi_nnunet.util.errors import UserError

    if not 0 <= confidence < 1:
        raise UserError(
            f"--confidence must be a probability from 0 to below 1, got {confidence:g}. Fix: "
            f"correct it"
        )


def label_pool(request: Request, launcher: Launcher, count: int | None = None) -> int:
    """Do what is left; returns the exit code.

    Args:
        request: what is asked for.
        launcher: of the parts.
        count: how many parts; None: as many as there are jobs at a time.
    """
    from semi_nnunet.cli.launching import Work, find_resources, launch
    from semi_nnunet.pseudo_labels.pool import Part, shards_left, write_table
    from semi_nnunet.util.shards import remove_unfinished

    if count is None:
        here = launcher.launcher == "local"
        count = find_resources(launcher.device, launcher.jobs).jobs if here else launcher.jobs or 1
    parts, left = [Part(request, number, count) for number in range(count)], []
    request.begin()
    if launcher.only is None:
        left = shards_left(request, count)
        print(f"{len(request.cases)} cases, {len(left)} parts to do", flush=True)
        remove_unfinished(request.out / "parts")
    words = ["pseudo-label", *parts[0].arguments()]
    work = Work(words, parts, [part.number for part in left], request.out / "parts")
    code = launch(launcher, work)
    if code is not None:
        return code
    state = request.state(request.cases)
    table = write_table(request, state.done)
    print(f"labelled {len(state.done)} cases: {request.labels}; {table}")
    for case, problem in state.bad.items():
        print(f"set aside: {case}: {problem}")
    return 0 if state.done else 1


def label_part(part: Part, device: str | None) -> None:
    """The work of one process."""
    import torch

    from semi_nnunet.pseudo_labels.pool import run_part
    from semi_nnunet.pseudo_labels.predictor import Labeller
    from semi_nnunet.util.progress import with_progress

    part.request.begin()  # raises if a model has changed since
    left = part.left()
    if not left:
        return
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    label = Labeller(part.request.trained, part.request.views, torch.device(chosen))
    for _ in with_progress(run_part(part, label, left), len(left)):
        pass
