"""Turn a trained model into a folder and a zip that stock nnU-Net installs and predicts from.

    semi_nnunet export -m 42/SemiUnifiedTrainer__nnUNetPlans__3d_fullres -o exported
    semi_nnunet export -d 42 -c 3d_fullres -tr SemiUnifiedTrainer -o exported       # the same

and on a machine without this package

    nnUNetv2_install_pretrained_model_from_zip exported/Dataset042_....zip
    nnUNetv2_predict -d 42 -c 3d_fullres -p nnUNetPlans_SemiUnifiedTrainer \\
        -i images -o predictions

The model holds the deployed weights only, under nnU-Net's own trainer name and with the method in
the name of its plans, so that it does not take the place of another one. Settings and provenance
lie beside the weights as plain JSON.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from semi_nnunet.discovery.names import RECOMMENDED


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add, default = parser.add_argument, "default: %(default)s"
    add("-m", dest="model", help="folder TRAINER__PLANS__CONFIGURATION, or a fold in it")
    add("-d", dest="dataset", metavar="ID", help="without -m: number or name of the data set")
    add("-c", dest="configuration", metavar="CONFIG", help="without -m: such as 3d_fullres")
    add("-tr", dest="trainer", help=f"without -m: class name (default: {RECOMMENDED})")
    add("-p", dest="plans", help="without -m: plans identifier (default: nnUNetPlans)")
    add("-f", dest="folds", nargs="+", metavar="FOLD", help="default: every finished fold")
    add("-chk", dest="checkpoint", default="checkpoint_final.pth", help=default)
    add("-o", dest="out", required=True, type=Path, help="where folder and zip go")


def run(args: argparse.Namespace) -> None:
    from semi_nnunet.deploy.export import export

    made = export(model_of(args), args.out, folds=args.folds, checkpoint=args.checkpoint)
    print(
        f"wrote {made.archive}\nnext: nnUNetv2_install_pretrained_model_from_zip {made.archive}\n"
        f"      nnUNetv2_predict -d {made.dataset} -c {made.configuration} -p {made.plans} "
        f"-f {' '.join(made.folds)} -i IMAGES -o PREDICTIONS   (without a GPU: -device cpu)"
    )


def model_of(args: argparse.Namespace) -> str:
    """The model's folder, of -m or of the names that it is made of.

    Raises:
        UserError: both or neither are given, or there is no such data set.
    """
    from semi_nnunet.data.layout import dataset_name
    from semi_nnunet.util.errors import UserError

    names = [args.dataset, args.configuration, args.trainer, args.plans]
    if args.model is not None and any(names):
        raise UserError("-m names the model alone. Fix: leave out -d, -c, -tr and -p, or -m")
    if args.model is not None:
        return str(args.model)
    if args.dataset is None or args.configuration is None:
        raise UserError("a model is needed. Fix: give -m MODEL, or -d, -c and -tr")
    trainer, plans = args.trainer or RECOMMENDED, args.plans or "nnUNetPlans"
    return f"{dataset_name(args.dataset)}/{trainer}__{plans}__{args.configuration}"
