"""Make a data set of labelled and pseudo-labelled cases, that any trainer can train on.

    semi_nnunet distil -d 42 -o 142 --base Dataset042_Pancreas/MODEL --views flips gamma
    semi_nnunet distil -d 42 -o 142 --base MODEL OTHER_MODEL --score disagreement --keep 0.5
    semi_nnunet distil -d 42 -o 142 --base MODEL --confidence 0.8

The models label imagesUn (semi_nnunet pseudo-label): one model with several views is data
distillation, several models are model distillation. The surest cases become training cases of the
new data set, in no validation fold (the source's folds are taken over); the others stay unlabelled.
Voxels below --confidence get nnU-Net's ignore label. Pseudo labels of a model that was trained on a
fold's validation cases make that validation optimistic: compare such trainings on imagesTs. For
another round, give a model trained on the new data set as --base, with the same -d and another -o.
"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from semi_nnunet.cli.pseudo_label import CONFIDENCE
    from semi_nnunet.pseudo_labels.views import NAMES

    add, default = parser.add_argument, "default: %(default)s"
    add("-d", dest="dataset", required=True, metavar="ID", help="the data set with imagesUn")
    add("-o", dest="new_id", type=int, required=True, metavar="NEW_ID", help="of the new one")
    add("--name", help="of the new one (default: the old name and Distilled)")
    add("--base", nargs="+", required=True, metavar="MODEL", help="see semi_nnunet pseudo-label")
    add("--views", nargs="+", default=[], choices=NAMES, metavar="VIEW", help=", ".join(NAMES))
    add("--keep", type=float, default=1.0, help="fraction, or number above 1, of the cases: the "
        f"surest ({default})")  # fmt: skip
    add("--most", type=float, metavar="U", help="the largest uncertainty to take (default: any)")
    add("--score", choices=["entropy", "disagreement"], default="entropy", help=default)
    add("--confidence", type=float, default=0.0, metavar="P", help=CONFIDENCE)
    add("--device", help="cpu, cuda or mps (default: cuda if there is one)")
    add("--jobs", type=int, help="processes that label (default: one for each GPU; 1 on the CPU)")
    add("-np", dest="processes", type=int, default=2, help=f"that check the files ({default})")
    add("--skip-bad", action="store_true", help="leave bad unlabelled images out")
    add("--symlink", action="store_true", help="link to the files instead of copying them")


def run(args: argparse.Namespace) -> int:
    from semi_nnunet.cli.crossval import find_resources
    from semi_nnunet.cli.pseudo_label import label_pool, require_confidence
    from semi_nnunet.data.integrity import cases_in
    from semi_nnunet.data.layout import (
        UNLABELLED_IMAGES,
        new_raw_dataset,
        preprocessed_dataset,
        raw_dataset,
    )
    from semi_nnunet.data.prepare import verify
    from semi_nnunet.errors import UserError
    from semi_nnunet.files import read_json
    from semi_nnunet.pseudo_labels.distil import Choice, write_distilled, write_folds
    from semi_nnunet.pseudo_labels.models import require_models_of
    from semi_nnunet.pseudo_labels.pool import Request

    require_confidence(args.confidence)
    if not args.keep > 0:
        raise UserError(f"--keep must be above 0, got {args.keep:g}. Fix: correct it")
    source = raw_dataset(args.dataset)
    name = args.name or f"{source.name.split('_', 1)[-1]}Distilled"
    target = new_raw_dataset(source.parent, args.new_id, name)
    request = Request(
        source / UNLABELLED_IMAGES,
        source.parent / f"pseudo_labels_{target.name}",
        tuple(args.base),
        tuple(args.views),
        args.confidence,
    )
    description = read_json(source / "dataset.json")
    require_models_of(request.trained, description, source.name)
    _, skipped = verify(source, args.processes, args.skip_bad)
    if code := label_pool(request, find_resources(args.device, args.jobs)):
        return code
    choice = Choice(args.keep, args.most, args.score)
    taken = write_distilled(source, target, request, choice, args.symlink, skipped)
    ending = description["file_ending"]
    labelled = list(cases_in(source / "imagesTr", ending))
    folds = write_folds(
        preprocessed_dataset(source.name), preprocessed_dataset(target.name), labelled, list(taken)
    )
    print(f"{target}: {len(labelled)} labelled and {len(taken)} pseudo-labelled cases")
    some_left = (target / UNLABELLED_IMAGES).is_dir()
    prepare = "semi_nnunet preprocess" if some_left else "nnUNetv2_plan_and_preprocess"
    print(f"next: {prepare} -d {args.new_id}")
    fold = "0" if folds else "all"
    print(f"      nnUNetv2_train {args.new_id} {request.trained[0].configuration} {fold}")
    return 0
