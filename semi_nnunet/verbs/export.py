"""``semi_nnunet export``."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated

from semi_nnunet.discovery.names import RECOMMENDED
from semi_nnunet.verbs.options import (
    MORE,
    Folds,
    OptionalConfiguration,
    OptionalDataset,
    OptionalPlans,
    OutputFolder,
    option,
)

if TYPE_CHECKING:
    from semi_nnunet.deploy.export import ExportedModel

logger = logging.getLogger(__name__)


def export(
    model: Annotated[str | None, option("-m")] = None,
    out: OutputFolder = None,  # type: ignore[assignment]
    *,
    dataset: OptionalDataset = None,
    configuration: OptionalConfiguration = None,
    trainer: Annotated[str | None, option("-tr")] = None,
    plans: OptionalPlans = None,
    folds: Folds = None,
    checkpoint: Annotated[str, option("-chk", group=MORE)] = "checkpoint_final.pth",
) -> ExportedModel:
    """Turn a trained model into a folder and a zip that stock nnU-Net installs and runs.

        semi_nnunet export -m 42/SemiUnifiedTrainer__nnUNetPlans__3d_fullres -o exported
        semi_nnunet export -d 42 -c 3d_fullres -tr SemiUnifiedTrainer -o exported       # the same

    and on a machine without this package

        nnUNetv2_install_pretrained_model_from_zip exported/Dataset042_....zip
        nnUNetv2_predict -d 42 -c 3d_fullres -p nnUNetPlans_SemiUnifiedTrainer \\
            -i images -o predictions

    The model holds only the deployed weights, under nnU-Net's own trainer name and with the method
    in the name of its plans, so that it does not replace another model. Settings and provenance lie
    next to the weights as plain JSON.

    Args:
        model: Folder TRAINER__PLANS__CONFIGURATION, or a fold in it.
        out: Folder for the exported folder and the zip.
        dataset: Without -m: number or name of the data set.
        configuration: Without -m: such as 3d_fullres.
        trainer: Without -m: class name (default: SemiUnifiedTrainer).
        plans: Without -m: plans identifier (default: nnUNetPlans).
        folds: Folds to export (default: every finished fold).
        checkpoint: Name of the file in each fold.

    Returns:
        Where the model is.

    Raises:
        UserError: the model or a fold is missing or unreadable, its network is not one of
            nnU-Net's, or the target exists.
    """
    from semi_nnunet.deploy.export import export_model
    from semi_nnunet.util.errors import UserError

    if out is None:
        raise UserError("-o must be a folder, got none", fix="give the folder to write to")
    name = model_name(model, dataset, configuration, trainer, plans)
    exported = export_model(name, out, folds=folds, checkpoint=checkpoint)
    logger.info(
        f"wrote {exported.archive}\n"
        f"next: nnUNetv2_install_pretrained_model_from_zip {exported.archive}\n"
        f"      nnUNetv2_predict -d {exported.dataset} -c {exported.configuration} "
        f"-p {exported.plans} -f {' '.join(exported.folds)} -i IMAGES -o PREDICTIONS   "
        f"(without a GPU: -device cpu)"
    )
    return exported


def model_name(
    model: str | None,
    dataset: str | None,
    configuration: str | None,
    trainer: str | None,
    plans: str | None,
) -> str:
    """Return the folder of the model, or its name DATASET/TRAINER__PLANS__CONFIGURATION.

    Raises:
        UserError: both or neither are given, or there is no such data set.
    """
    from semi_nnunet.raw.layout import resolve_dataset_name
    from semi_nnunet.util.errors import UserError

    if model is None:
        if dataset is None or configuration is None:
            raise UserError("no model is given", fix="give -m MODEL, or -d, -c and -tr")
        names = (trainer or RECOMMENDED, plans or "nnUNetPlans", configuration)
        return f"{resolve_dataset_name(dataset)}/{'__'.join(names)}"
    if any((dataset, configuration, trainer, plans)):
        raise UserError("-m names the model already", fix="omit -d, -c, -tr and -p, or -m")
    return str(model)
