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

    model = model_of(args.model, args.dataset, args.configuration, args.trainer, args.plans)
    made = export(model, args.out, folds=args.folds, checkpoint=args.checkpoint)
    print(
        f"wrote {made.archive}\nnext: nnUNetv2_install_pretrained_model_from_zip {made.archive}\n"
        f"      nnUNetv2_predict -d {made.dataset} -c {made.configuration} -p {made.plans} "
        f"-f {' '.join(made.folds)} -i IMAGES -o PREDICTIONS   (without a GPU: -device cpu)"
    )


def model_of(
    model: str | None,
    dataset: str | None,
    configuration: str | None,
    trainer: str | None,
    plans: str | None,
) -> str:
    """The model's folder, or the names that it is made of as one.

    Raises:
        UserError: both or neither are given, or there is no such data set.
    """
    from semi_nnunet.data.layout import dataset_name
    from semi_nnunet.util.errors import UserError

    if model is None:
        if dataset is None or configuration is None:
            raise UserError("a model is needed", fix="give -m MODEL, or -d, -c and -tr")
        names = (trainer or RECOMMENDED, plans or "nnUNetPlans", configuration)
        return f"{dataset_name(dataset)}/{'__'.join(names)}"
    if any((dataset, configuration, trainer, plans)):
        raise UserError("-m names the model alone", fix="leave out -d, -c, -tr and -p, or -m")
    return model
