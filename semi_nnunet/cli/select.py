"""Choose the unlabelled images to train on, by how sure trained models are of them (UIF).

    semi_nnunet select -d 42 -m Dataset042_Pancreas/MODEL --keep 0.5
    semi_nnunet select -d 42 -m MODEL OTHER_MODEL --score disagreement --keep 200
    semi_nnunet select -d 42 --undo

The models label imagesUn (semi_nnunet pseudo-label); the surest images are written down where every
trainer of ours reads it, and a page shows the most and the least certain. Filtering within a
training is a setting instead (filter_epochs).
"""

from __future__ import annotations

import argparse
import zlib
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from semi_nnunet.pseudo_labels.views import NAMES

    add, default = parser.add_argument, "default: %(default)s"
    add("-d", dest="dataset", required=True, metavar="ID", help="the data set with imagesUn")
    add("-m", dest="models", nargs="+", metavar="MODEL", help="see semi_nnunet pseudo-label")
    add("--views", nargs="+", default=[], choices=NAMES, metavar="VIEW", help=", ".join(NAMES))
    add("--keep", type=float, default=0.5, help=f"fraction, or number above 1 ({default})")
    add("--most", type=float, metavar="U", help="the largest uncertainty to keep (default: any)")
    add("--score", choices=["entropy", "disagreement"], default="entropy", help=default)
    add("--page", type=Path, default=Path("selection.html"), help=default)
    add("--undo", action="store_true", help="train on all images again")
    add("--device", help="cpu, cuda or mps (default: cuda if there is one)")
    add("--jobs", type=int, help="processes that label (default: one for each GPU; 1 on the CPU)")


def run(args: argparse.Namespace) -> int:
    from semi_nnunet.cli.launching import Launcher
    from semi_nnunet.cli.pseudo_label import label_pool
    from semi_nnunet.data.layout import (
        SELECTED_FILE,
        UNLABELLED_IMAGES,
        preprocessed_dataset,
        raw_dataset,
    )
    from semi_nnunet.deploy.trained import require_models_of
    from semi_nnunet.errors import UserError
    from semi_nnunet.files import read_json, write_atomically, write_json
    from semi_nnunet.pseudo_labels.distil import Choice, choose
    from semi_nnunet.pseudo_labels.gallery import write_page
    from semi_nnunet.pseudo_labels.pool import Request, scores_of

    path = preprocessed_dataset(args.dataset) / SELECTED_FILE
    if args.undo:
        path.unlink(missing_ok=True)
        print("trainings use all unlabelled images")
        return 0
    if not args.models or not args.keep > 0:
        raise UserError("select needs models (-m) and a --keep above 0. Fix: give them, or --undo")
    raw = raw_dataset(args.dataset)
    asked = " ".join([*args.models, *sorted(args.views)])  # other models label into another folder
    out = raw.parent / f"pseudo_labels_{raw.name}_{zlib.crc32(asked.encode()):08x}"
    request = Request(raw / UNLABELLED_IMAGES, out, tuple(args.models), tuple(args.views))
    require_models_of(request.trained, read_json(raw / "dataset.json"), raw.name)
    if code := label_pool(request, Launcher(device=args.device, jobs=args.jobs)):
        return code
    kept = sorted(choose(request, Choice(args.keep, args.most, args.score)))
    scores = {case: values[args.score] for case, values in scores_of(request.done()).items()}
    write_atomically(args.page, lambda page: write_page(page, request, scores, kept, args.score))
    record = {**request.record(), "score": args.score, "keep": args.keep, "most": args.most}
    write_json(path, {**record, "cases": kept})
    print(f"{len(kept)} of {len(scores)} unlabelled images are selected; see {args.page}")
    print(f"trainings of {raw.name} use these alone, until semi_nnunet select -d ... --undo")
    return 0
