"""``semi_nnunet export``."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated

from semi_nnunet.verbs.options import (
    MORE,
    Model,
    ModelConfiguration,
    ModelDataset,
    ModelFolds,
    ModelPlans,
    ModelTrainer,
    OutputFolder,
    option,
)

if TYPE_CHECKING:
    from semi_nnunet.deploy.export import ExportedModel

logger = logging.getLogger(__name__)


def export(
    model: Model = None,
    out: OutputFolder = None,  # type: ignore[assignment]
    *,
    dataset: ModelDataset = None,
    configuration: ModelConfiguration = None,
    trainer: ModelTrainer = None,
    plans: ModelPlans = None,
    folds: ModelFolds = None,
    checkpoint: Annotated[str, option("-chk", group=MORE)] = "checkpoint_final.pth",
) -> ExportedModel:
    """Turn a trained model into a folder and a zip that stock nnU-Net installs and runs.

        semi_nnunet export -m 42/SemiUnifiedTrainer__nnUNetPlans__3d_fullres -o exported
        semi_nnunet export -d 42 -c 3d_fullres -tr SemiUnifiedTrainer -o exported       # the same

    On a machine without this package:

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
        configuration: Without -m: such as 3d_fullres (default: the only trained one).
        trainer: Without -m: class name (default: SemiUnifiedTrainer, or the only trained one).
        plans: Without -m: plans identifier (default: nnUNetPlans, or the only trained ones).
        folds: Folds to export (default: every finished fold).
        checkpoint: Name of the file in each fold.

    Returns:
        Where the model is.

    Raises:
        UserError: the model or a fold is missing or unreadable, its network is not one of
            nnU-Net's, or the target exists.

    Example:
        >>> export("42/SemiMeanTeacherTrainer__short__2d", "exported").plans
        'short_SemiMeanTeacherTrainer'
    """
    from semi_nnunet.deploy.export import export_model
    from semi_nnunet.util.errors import UserError
    from semi_nnunet.workflows.selection import select_model

    if out is None:
        raise UserError("-o must be a folder, got none", fix="give the folder to write to")
    name = select_model(model, dataset, configuration, trainer, plans, checkpoint)
    exported = export_model(name, out, folds=folds, checkpoint=checkpoint)
    logger.info(
        f"wrote {exported.archive}\n"
        f"next: nnUNetv2_install_pretrained_model_from_zip {exported.archive}\n"
        f"      nnUNetv2_predict -d {exported.dataset} -c {exported.configuration} "
        f"-p {exported.plans} -f {' '.join(exported.folds)} -i IMAGES -o PREDICTIONS   "
        f"(without a GPU: -device cpu)"
    )
    return exported
