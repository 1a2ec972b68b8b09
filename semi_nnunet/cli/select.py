"""Choose the unlabelled images to train on, by how sure trained models are of them (UIF).

    semi_nnunet select -d 42 -m Dataset042_Pancreas/MODEL --keep 0.5
    semi_nnunet select -d 42 -m MODEL OTHER_MODEL --score disagreement --keep 200
    semi_nnunet select -d 42 -m MODEL --score change --before LABELLED_BEFORE --keep 0.9
    semi_nnunet select -d 42 --undo

The models label imagesUn (semi_nnunet pseudo-label); the surest images are written down where every
trainer of ours reads it, a page shows the most and the least certain, and a table beside it has
every case's score. Filtering within a training is a setting instead (filter_epochs).

Scores, 0 the surest: entropy of the labels; disagreement of several models; change of the labels
over rounds (FLARE22's winner) and checkpoints (ST++), which compare with --before.
"""

from __future__ import annotations

import argparse
import os
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from semi_nnunet.pseudo_labels.choice import Choice


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from semi_nnunet.cli import launching
    from semi_nnunet.pseudo_labels.test_time_augmentation import NAMES

    add, default = parser.add_argument, "default: %(default)s"
    add("-d", dest="dataset", required=True, metavar="ID", help="the data set with imagesUn")
    add("-m", dest="models", nargs="+", metavar="MODEL", help="see semi_nnunet pseudo-label")
    add("--views", nargs="+", default=[], choices=NAMES, metavar="VIEW", help=", ".join(NAMES))
    add("--keep", type=float, default=0.5, help=f"fraction, or number above 1 ({default})")
    add_score_arguments(parser)
    add("--page", type=Path, default=Path("selection.html"), help=default)
    add("--undo", action="store_true", help="train on all images again")
    launching.add_device(parser)
    add("--jobs", type=int, help="processes that label (default: one for each GPU; 1 on the CPU)")


def add_score_arguments(parser: argparse.ArgumentParser) -> None:
    """By what the surest cases are chosen."""
    from semi_nnunet.pseudo_labels.choice import SCORES

    add = parser.add_argument
    add("--most", type=float, metavar="U", help="the largest uncertainty to take (default: any)")
    add("--score", choices=SCORES, default="entropy", help="default: %(default)s")
    add("--before", nargs="+", default=[], metavar="OUT", help="-o of pseudo-label, where earlier "
        "models or checkpoints labelled the same images, the oldest first")  # fmt: skip


def choice_of(args: argparse.Namespace, keep: float) -> Choice:
    """What :func:`add_score_arguments` asked for."""
    from semi_nnunet.pseudo_labels.choice import Choice

    return Choice(keep, args.most, args.score, tuple(map(os.path.abspath, args.before)))


def run(args: argparse.Namespace) -> int:
    from semi_nnunet.cli.launching import Launcher
    from semi_nnunet.cli.pseudo_label import label_pool
    from semi_nnunet.data.layout import (
        SELECTED_FILE,
        SKIPPED_FILE,
        UNLABELLED_IMAGES,
        preprocessed_dataset,
        raw_dataset,
    )
    from semi_nnunet.deploy.trained import find_models, require_models_of
    from semi_nnunet.pseudo_labels.choice import case_scores, choose, score_problems
    from semi_nnunet.pseudo_labels.gallery import write_page
    from semi_nnunet.pseudo_labels.pool import Request
    from semi_nnunet.training.filtering import write_table
    from semi_nnunet.util.errors import Problem, UserError
    from semi_nnunet.util.files import optional_json, read_json, write_atomically, write_json

    path = preprocessed_dataset(args.dataset) / SELECTED_FILE
    if args.undo:
        path.unlink(missing_ok=True)
        print("trainings use all unlabelled images")
        return 0
    if not args.models or not args.keep > 0:
        raise UserError("select needs models (-m) and a --keep above 0. Fix: give them, or --undo")
    problems = list(score_problems(args.score, args.before))
    if args.page.suffix == ".csv":
        problems.append(
            Problem("--page", "is an HTML file, beside which a .csv is written", "x.html")
        )
    if problems:
        raise UserError("select cannot start:", problems)
    raw = raw_dataset(args.dataset)
    models = find_models(args.models)
    stages = [*models, *(model.previous for model in models if model.previous is not None)]
    checksums = [str(model.checksums()) for model in stages]
    asked = " ".join([*args.models, *sorted(args.views), *checksums])  # others: another folder
    out = raw.parent / f"pseudo_labels_{raw.name}_{zlib.crc32(asked.encode()):08x}"
    request = Request(raw / UNLABELLED_IMAGES, out, tuple(args.models), tuple(args.views))
    require_models_of(request.trained, read_json(raw / "dataset.json"), raw.name)
    if code := label_pool(request, Launcher(device=args.device, jobs=args.jobs)):
        return code
    choice = choice_of(args, args.keep)
    aside = optional_json(path.with_name(SKIPPED_FILE))  # bad images, which no training sees
    scores = case_scores(request, choice, aside)
    kept = sorted(choose(scores, choice))
    table = args.page.with_suffix(".csv")
    write_atomically(args.page, lambda page: write_page(page, request, scores, kept, args.score))
    write_table(table, scores, kept)
    write_json(path, {**request.record(), **choice.record(), "cases": kept})
    print(f"{len(kept)} of {len(scores)} unlabelled images are selected; see {args.page}, {table}")
    print(f"trainings of {raw.name} use these alone, until semi_nnunet select -d ... --undo")
    return 0
