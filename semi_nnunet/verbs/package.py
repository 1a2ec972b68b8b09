"""``semi_nnunet package``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from semi_nnunet.verbs.options import (
    FIRST,
    MORE,
    Model,
    ModelConfiguration,
    ModelDataset,
    ModelFolds,
    ModelPlans,
    ModelTrainer,
    OutputFolder,
    name_speed,
    one_of,
    option,
)

if TYPE_CHECKING:
    from semi_nnunet.challenge.packaging import PackagedSubmission

logger = logging.getLogger(__name__)
SPEED, WHEELS = one_of(), one_of()


def package(
    model: Model = None,
    out: OutputFolder = None,  # type: ignore[assignment]
    *,
    dataset: ModelDataset = None,
    configuration: ModelConfiguration = None,
    trainer: ModelTrainer = None,
    plans: ModelPlans = None,
    contract: Annotated[Literal["flare22", "flare24", "generic"], option()] = "generic",
    folds: ModelFolds = None,
    device: Annotated[Literal["cpu", "cuda"] | None, option("--device", "-device")] = None,
    exact: Annotated[bool, option(group=(FIRST, SPEED))] = False,
    fast: Annotated[bool, option(group=(FIRST, SPEED))] = False,
    step_size: Annotated[float | None, option("--step-size", "-step_size", group=MORE)] = None,
    licence: Annotated[str | None, option(group=MORE)] = None,
    pins: Annotated[Sequence[str], option("--pin", several=True, group=MORE)] = (),
    wheels: Annotated[Path | None, option(group=(MORE, WHEELS))] = None,
    extra_index_url: Annotated[str | None, option(group=(MORE, WHEELS))] = None,
) -> PackagedSubmission:
    """Make a trained model a challenge submission: a folder to build and run without network.

        semi_nnunet package -m Dataset042_Pancreas/MODEL -f 0 -o my_team --contract flare22
        semi_nnunet package -m exported.zip -o my_team --device cpu --fast

    The folder holds the weights and nothing else of the training, pinned wheels of everything that
    a prediction imports, a Dockerfile, an Apptainer definition, predict.sh with the challenge's
    folders and file names, licences and a model card. If the contract has no GPU, or with --device
    cpu, CUDA is not packed: pip must then find a PyTorch of the version +cpu, in an index given by
    --extra-index-url or pip's settings, or in the folder --wheels. Reading the model executes
    nothing of it.

    Args:
        model: Folder TRAINER__PLANS__CONFIGURATION, a fold in it, or a zip of semi_nnunet export.
        out: New folder; its name becomes the name of the image.
        dataset: Without -m: number or name of the data set.
        configuration: Without -m: such as 3d_fullres (default: the only trained one).
        trainer: Without -m: class name (default: SemiUnifiedTrainer, or the only trained one).
        plans: Without -m: plans identifier (default: nnUNetPlans, or the only trained ones).
        contract: Rules of the challenge.
        folds: Folds to package (default: every finished fold).
        device: cpu: without CUDA; cuda: a GPU is used if there is one (default: as the contract
            says).
        exact: Give exactly the labels of nnUNetv2_predict.
        fast: Predict without mirrored images.
        step_size: Step between tiles, as a fraction of the patch (default: 0.5, nnU-Net's).
        licence: Licence of the weights, for the model card.
        pins: NAME==VERSION of packages to take instead of the installed version, such as
            torch==VERSION+cpu.
        wheels: Folder to take all wheels from, without network.
        extra_index_url: Another index for pip.

    Returns:
        The submission that was written.

    Raises:
        UserError: the model, an option or a wheel cannot be used; nothing is written then.
    """
    from semi_nnunet.challenge.packaging import package_model
    from semi_nnunet.util.errors import UserError
    from semi_nnunet.util.files import amount
    from semi_nnunet.workflows.selection import select_model

    if out is None:
        raise UserError("-o must be a folder, got none", fix="give the folder to write to")

    submission = package_model(
        select_model(model, dataset, configuration, trainer, plans),
        out,
        contract=contract,
        folds=folds,
        device=device,
        speed=name_speed(exact, fast),
        step=step_size,
        licence=licence,
        pins=pins,
        wheel_folder=wheels,
        extra_index_url=extra_index_url,
    )
    limit = "" if submission.contract.limit is None else f" --limit {submission.contract.limit:g}"
    lines = [f"{out} is a submission for {submission.contract.about}:"]
    lines += [
        f"  {amount(part.size):>10}  {part.name:<18} {part.what}" for part in submission.parts
    ]
    lines += [
        f"  {amount(submission.size):>10}  together",
        f"build:   docker build -t {submission.name} {out}",
        f"run:     {submission.call}",
        f"try:     sh {out}/install.sh trial   (without docker)",
        "         sh trial/workspace/predict.sh INPUTS OUTPUTS",
        f"measure: semi_nnunet efficiency -i imagesTs -o measured{limit} --command \\",
        '         "sh trial/workspace/predict.sh {inputs} {outputs}"',
    ]
    logger.info("\n".join(lines))
    return submission
