"""Train one fold in this process, with nnU-Net's own entry point."""

from __future__ import annotations

from pathlib import Path

import torch
from nnunetv2.run.run_training import run_training

from semi_nnunet.discovery.listing import unknown_trainers
from semi_nnunet.discovery.names import RECOMMENDED
from semi_nnunet.discovery.register import trainer_folders
from semi_nnunet.raw.plans import read_plans
from semi_nnunet.runs.folders import find_folders
from semi_nnunet.runs.folds import find_fold_problems
from semi_nnunet.runs.job import Job
from semi_nnunet.runs.launching import find_resources
from semi_nnunet.runs.process_group import find_launch_problems, join_process_group
from semi_nnunet.training.checkpoints import PRETRAINED, check_pretrained_weights
from semi_nnunet.util.environment import variable
from semi_nnunet.util.errors import raise_if_any
from semi_nnunet.util.names import require_positive, unknown
from semi_nnunet.workflows.before_start import find_data_problems

EXTERNAL = "nnUNet_extTrainer"  # the variable by which nnU-Net finds trainers that are not its own


def train_fold(
    dataset: str,
    configuration: str,
    fold: str | int,
    trainer: str = RECOMMENDED,
    *,
    plans: str = "nnUNetPlans",
    resume: bool = False,
    validate_only: bool = False,
    device: str | None = None,
    gpus: int = 1,
    npz: bool = False,
    pretrained_weights: str | Path | None = None,
) -> Path:
    """Train and validate one fold, as ``nnUNetv2_train`` does, in this process.

    If ``torchrun`` started this process, it trains together with the others.
    :func:`semi_nnunet.train` documents the arguments.

    Returns:
        The folder of the fold, with the checkpoints and the validation cases' predictions.

    Raises:
        UserError: the trainer, plans, configuration, fold or device does not exist; the data are
            not preprocessed or do not fit the training; settings are wrong; or the pretrained
            weights are missing or can execute code.
    """
    folders = find_folders(dataset)
    content = read_plans(folders.preprocessed, plans)
    require_positive({"-num_gpus": gpus})
    torch_device = torch.device(find_resources(device).device)
    problems = [
        *find_launch_problems(trainer, gpus, pretrained_weights is not None),
        *unknown_trainers([trainer]),
        *unknown("configuration", [configuration], content["configurations"]),
        *find_fold_problems(folders, [str(fold)]),
    ]
    if not problems:
        problems = [*find_data_problems(folders, content, plans, [configuration], [trainer])]
    raise_if_any("The training cannot start:", problems)
    if pretrained_weights is not None:
        check_pretrained_weights([PRETRAINED, str(pretrained_weights)])
    job = Job(folders, trainer, configuration, str(fold), 0, plans)
    with variable(EXTERNAL, trainer_folders()), join_process_group(torch_device.type):
        run_training(
            folders.preprocessed.name,
            configuration,
            str(fold),
            trainer,
            plans,
            None if pretrained_weights is None else str(pretrained_weights),
            num_gpus=gpus,
            export_validation_probabilities=npz,
            continue_training=resume,
            only_run_validation=validate_only,
            device=torch_device,
        )
    return job.folder
