"""Label images that nobody labelled, with trained models: as many as there are, on any machine.

    semi_nnunet pseudo-label -i images -o labelled -m Dataset042_Pancreas/MODEL --jobs 2
    semi_nnunet pseudo-label -i images -o labelled -m MODEL OTHER_MODEL --views flips rot90 gamma
    semi_nnunet pseudo-label ... --launcher slurm --parts 100 --sbatch '--gres=gpu:1'

A MODEL is a folder TRAINER__PLANS__CONFIGURATION below nnUNet_results, of our trainers or
nnU-Net's, or a fold in it. Folds and views are averaged as logits, models as probabilities, as
nnU-Net does: without --views this is nnUNetv2_predict --disable_tta, with "flips" its default. Each
part of the pool is a process. Run it again to go on: what is killed costs its current case. A bad
image is set aside and named; the others go on. uncertainty.csv says how unsure the models are of
each image, the most certain first.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from semi_nnunet.pseudo_labels.pool import Part, Request
    from semi_nnunet.runs.local import Resources

CONFIDENCE = "voxels whose label is less probable get nnU-Net's ignore label (default: none does)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from semi_nnunet.pseudo_labels.views import NAMES

    add, default = parser.add_argument, "default: %(default)s"
    add("-i", dest="images", type=Path, required=True, help="folder of CASE_0000.ending files")
    add("-o", dest="out", type=Path, required=True, help="folder for labels/ and the lists")
    add("-m", dest="models", nargs="+", required=True, metavar="MODEL", help="see above")
    add("--views", nargs="+", default=[], choices=NAMES, metavar="VIEW", help=", ".join(NAMES))
    add("--confidence", type=float, default=0.0, metavar="P", help=CONFIDENCE)
    add("--npz", action="store_true", help="keep the probabilities")
    add("--device", help="cpu, cuda or mps (default: cuda if there is one)")
    add("--jobs", type=int, help="at a time (default: one for each GPU; 1 on the CPU)")
    add("--parts", type=int, help="into which the pool is cut (default: --jobs)")
    add("--launcher", choices=["local", "slurm"], default="local", help=default)
    add("--sbatch", default="", metavar="OPTIONS", help="options of sbatch (slurm only)")
    add("--only", type=int, help=argparse.SUPPRESS)  # the part of a task of a cluster
    add("--worker", action="store_true", help=argparse.SUPPRESS)  # the process that labels a part


def run(args: argparse.Namespace) -> int:
    from semi_nnunet.cli.crossval import find_resources
    from semi_nnunet.errors import UserError
    from semi_nnunet.pseudo_labels.pool import Part, Request

    if (args.jobs or 1) < 1 or (args.parts or 1) < 1:
        raise UserError("--jobs and --parts must be 1 or more. Fix: correct them")
    request = Request(
        args.images.absolute(),
        args.out.absolute(),
        tuple(args.models),
        tuple(args.views),
        args.confidence,
        args.npz,
    )
    require_confidence(args.confidence)
    only = None if args.only is None else Part(request, args.only, args.parts)
    if only is not None and args.worker:
        label_part(only, args.device)
        return 0
    if args.launcher == "slurm":
        request.begin()
        submit_to_slurm(args, request)
        return 0
    return label_pool(request, find_resources(args.device, args.jobs), args.parts, only)


def require_confidence(confidence: float) -> None:
    """Check a probability.

    Raises:
        UserError: it is none.
    """
    from semi_nnunet.errors import UserError

    if not 0 <= confidence < 1:
        raise UserError(
            f"--confidence must be a probability from 0 to below 1, got {confidence:g}. Fix: "
            f"correct it"
        )


def label_pool(
    request: Request, resources: Resources, count: int | None = None, only: Part | None = None
) -> int:
    """Do what is left on this machine, or one part of it; returns the exit code."""
    from semi_nnunet.pseudo_labels.pool import parts_left, write_table
    from semi_nnunet.runs.commands import ended_like_ctrl_c
    from semi_nnunet.runs.local import run_jobs

    request.begin()
    parts = [only] if only else parts_left(request, count or resources.jobs)
    print(f"{len(request.cases)} cases, {len(parts)} parts to do", flush=True)
    if parts:
        with ended_like_ctrl_c():
            outcomes = run_jobs(parts, resources)
        failed = [one for one in outcomes if one.state in ("failed", "elsewhere")]
        for outcome in failed:
            print(f"  {outcome.job}: {outcome.state}, see {outcome.job.log}")
        if failed:
            print("run the same command again to go on")
            return 1
    if only:
        return 0
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
    from semi_nnunet.watch import TimeLeft

    part.request.begin()  # raises if a model has changed since
    left = part.left()
    if not left:
        return
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    label = Labeller(part.request.trained, part.request.views, torch.device(chosen))
    time_left, before = TimeLeft(), time.monotonic()
    for done, _ in enumerate(run_part(part, label, left), start=1):
        now = time.monotonic()
        rest, before = time_left.after_epoch(now - before, len(left) - done), now
        print(f"{done} of {len(left)} cases done, about {rest} left", flush=True)


def submit_to_slurm(args: argparse.Namespace, request: Request) -> None:
    """A task for every part that is left."""
    from semi_nnunet.pseudo_labels.pool import parts_left, write_table
    from semi_nnunet.runs.slurm import batch_script, submit

    parts = parts_left(request, args.parts or args.jobs or 1)
    if not parts:
        print(f"nothing is left: {request.labels}; {write_table(request, request.done())}")
        return
    indices = [part.number for part in parts]
    words = ["pseudo-label", *parts[0].arguments()]
    words += ["--device", args.device] if args.device else []
    logs = request.out / "parts"
    script = batch_script(words, indices, args.jobs or len(indices), logs, args.sbatch)
    number = submit(script, logs / "array.sh")
    print(f"submitted {len(indices)} parts as array {number}, logs in {logs}")
    print(f"next: squeue -j {number}; when it is empty, this command again, for the tables")
