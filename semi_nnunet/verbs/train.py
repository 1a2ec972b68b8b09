"""``semi_nnunet train``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

from semi_nnunet.discovery.names import DEFAULT_PLANS, RECOMMENDED
from semi_nnunet.verbs.options import FIRST, MORE, ComputeDevice, Plans, RareFlag, one_of, option

logger = logging.getLogger(__name__)
MODE = one_of()


def train(
    dataset: str,
    configuration: str,
    fold: str,
    trainer: Annotated[str, option("-tr")] = RECOMMENDED,
    *,
    plans: Plans = DEFAULT_PLANS,
    resume: Annotated[bool, option("--c", group=(FIRST, MODE))] = False,
    validate_only: Annotated[bool, option("--val", group=(FIRST, MODE))] = False,
    device: ComputeDevice = None,
    gpus: Annotated[int, option("-num_gpus", group=MORE)] = 1,
    npz: RareFlag = False,
    pretrained_weights: Annotated[Path | None, option("-pretrained_weights", group=MORE)] = None,
) -> Path:
    """Train one fold as nnUNetv2_train does, after checking everything that would stop it later.

        semi_nnunet train 42 3d_fullres 0
        semi_nnunet train 42 3d_fullres 0 -tr SemiCPSTrainer --c
        semi_nnunet train 42 2d all -tr nnUNetTrainer -device cpu
        torchrun --nproc_per_node 4 -m semi_nnunet train 42 3d_fullres 0 --c

    Takes the words of nnUNetv2_train and trains with nnU-Net's own entry point in this process.
    Before anything is written, it reports everything that is missing or wrong, with the fix: names
    of trainers, plans, configurations and folds, data that are not preprocessed, a missing GPU,
    weights that hold a program.

    Args:
        dataset: Number or name of the data set.
        configuration: Such as 3d_fullres.
        fold: A number, or all.
        trainer: Class name of one of ours, of nnU-Net's, or in nnUNet_extTrainer.
        plans: Plans identifier.
        resume: Continue from the last checkpoint.
        validate_only: Predict and measure the validation cases of a trained fold.
        device: Where the network computes (default: cuda if there is a GPU).
        gpus: GPUs that train together.
        npz: Keep probabilities of the validation cases, for ensembles.
        pretrained_weights: Checkpoint to start from (default: random weights).

    Returns:
        The folder of the fold, from which :func:`semi_nnunet.predict` predicts.

    Raises:
        UserError: the trainer, the plans, the configuration, the fold or the device does not exist,
            the data or settings do not fit, or the weights are missing or can execute code.

    Example:
        >>> train("42", "2d", "0", "SemiMeanTeacherTrainer", plans="short", device="cpu").name
        'fold_0'
    """
    import torch
    from nnunetv2.run import run_training as nnunet

    from semi_nnunet.core.devices import choose_device
    from semi_nnunet.discovery.listing import unknown_trainers
    from semi_nnunet.discovery.register import EXTERNAL, trainer_folders
    from semi_nnunet.raw.plans import read_plans
    from semi_nnunet.runs.folders import find_folders
    from semi_nnunet.runs.folds import find_fold_problems
    from semi_nnunet.runs.job import Job
    from semi_nnunet.runs.process_group import (
        find_launch_problems,
        is_first_process,
        join_process_group,
    )
    from semi_nnunet.training.checkpoints import PRETRAINED, check_pretrained_weights
    from semi_nnunet.util.command import typed
    from semi_nnunet.util.environment import variable
    from semi_nnunet.util.errors import raise_if_any
    from semi_nnunet.util.lock import released_after
    from semi_nnunet.util.names import require_positive, unknown
    from semi_nnunet.workflows.before_start import (
        find_data_problems,
        find_description_changes,
        find_raw_changes,
    )
    from semi_nnunet.workflows.next_step import format_device_option, suggest_preprocessing

    folders, fold = find_folders(dataset), str(fold)
    content = read_plans(folders.preprocessed, plans)
    require_positive({"-num_gpus": gpus})
    torch_device = torch.device(choose_device(device))
    problems = [
        *find_launch_problems(trainer, gpus, pretrained_weights is not None),
        *unknown_trainers([trainer]),
        *unknown("configuration", [configuration], content["configurations"]),
        *find_fold_problems(folders, [fold]),
    ]
    if not problems:
        problems = [
            *find_description_changes(folders),
            *find_raw_changes(folders, suggest_preprocessing(dataset, plans, [configuration])),
            *find_data_problems(folders, content, plans, [configuration], [trainer]),
        ]
    raise_if_any("The training cannot start:", problems)
    weights = None if pretrained_weights is None else str(pretrained_weights)
    if weights is not None:
        check_pretrained_weights([PRETRAINED, weights])
    external = variable(EXTERNAL, trainer_folders())
    with external, released_after(), join_process_group(torch_device.type):
        nnunet.run_training(
            folders.preprocessed.name,
            configuration,
            fold,
            trainer,
            plans,
            weights,
            num_gpus=gpus,
            export_validation_probabilities=npz,
            continue_training=resume,
            only_run_validation=validate_only,
            device=torch_device,
        )
    folder = Job(folders, trainer, configuration, fold, 0, plans).folder
    if is_first_process():
        model = ["-d", dataset, "-c", configuration, "-f", fold, "-tr", trainer]
        model += [] if plans == DEFAULT_PLANS else ["-p", plans]
        words = ("nnUNetv2_predict", *model, "-i", "IMAGES", "-o", "PREDICTIONS")
        next_command = typed((*words, *format_device_option(device)))
        logger.info(f"{folder} is trained\nnext: {next_command}")
    return folder
