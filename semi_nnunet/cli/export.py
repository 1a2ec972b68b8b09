"""Turn a trained model into a folder and a zip that stock nnU-Net installs and predicts from.

    semi_nnunet export -d 42 -c 3d_fullres -tr SemiUnifiedTrainer -o exported

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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add, default = parser.add_argument, "default: %(default)s"
    add("-d", dest="dataset", required=True, metavar="ID", help="number or name of the data set")
    add("-c", dest="configuration", required=True, metavar="CONFIG", help="such as 3d_fullres")
    add("-tr", dest="trainer", required=True, help="such as SemiUnifiedTrainer")
    add("-p", dest="plans", default="nnUNetPlans", help=f"plans identifier ({default})")
    add("-f", dest="folds", nargs="+", metavar="FOLD", help="default: every finished fold")
    add("-chk", dest="checkpoint", default="checkpoint_final.pth", help=default)
    add("-o", dest="out", required=True, type=Path, help="where folder and zip go")


def run(args: argparse.Namespace) -> None:
    from semi_nnunet.deploy.export import export

    made = export(
        args.dataset, args.configuration, args.trainer, args.out, plans=args.plans,
        folds=args.folds, checkpoint=args.checkpoint,
    )  # fmt: skip
    print(
        f"wrote {made.archive}\nnext: nnUNetv2_install_pretrained_model_from_zip {made.archive}\n"
        f"      nnUNetv2_predict -d {args.dataset} -c {args.configuration} -p {made.plans} "
        f"-f {' '.join(made.folds)} -i IMAGES -o PREDICTIONS   (without a GPU: -device cpu)"
    )
