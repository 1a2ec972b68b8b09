"""Train one fold, in this process, by nnU-Net's own entry point."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from nnunetv2.run.run_training import run_training

from semi_nnunet.data.layout import read_plans
from semi_nnunet.discovery.listing import unknown_trainers
from semi_nnunet.discovery.names import RECOMMENDED
from semi_nnunet.discovery.register import trainer_folders
from semi_nnunet.runs.before_start import data_problems
from semi_nnunet.runs.folders import folders_of
from semi_nnunet.runs.folds import fold_problems
from semi_nnunet.runs.job import Job
from semi_nnunet.runs.launching import find_resources
from semi_nnunet.runs.process_group import launch_problems, process_group
from semi_nnunet.training.checkpoints import PRETRAINED, check_pretrained_weights
from semi_nnunet.util.errors import raise_if_any
from semi_nnunet.util.names import require_positive, unknown

EXTERNAL = "nnUNet_extTrainer"  # the variable by which nnU-Net finds trainers that are not its own


def train(
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

    If ``torchrun`` has started this process, it trains together with the others.

    Args:
        dataset: number or name; it is prepared.
        configuration: such as "2d".
        fold: a number, or "all".
        trainer: class name of one of ours, of nnU-Net's, or of those in nnUNet_extTrainer.
        plans: identifier of the plans.
        resume: go on from the last checkpoint, if there is one; else the training starts anew.
        validate_only: predict and measure the validation cases of a fold that is trained.
        device: "cpu", "cuda" or "mps"; None: cuda if there is one, else the CPU.
        gpus: how many train together.
        npz: keep the probabilities of the validation cases, for ensembles.
        pretrained_weights: checkpoint to start from; None: from random weights.

    Returns:
        The folder of the fold, with the checkpoints and the validation cases' predictions, from
        which :func:`semi_nnunet.predict` predicts.

    Raises:
        UserError: the trainer, the plans, the configuration, the fold or the device does not exist,
            the data are not preprocessed or do not fit the training, the settings do not, or the
            pretrained weights are not there or can execute code.
    """
    folders = folders_of(dataset)
    content = read_plans(folders.preprocessed, plans)
    require_positive({"-num_gpus": gpus})
    place = torch.device(find_resources(device).device)
    problems = [
        *launch_problems(trainer, gpus, pretrained_weights is not None),
        *unknown_trainers([trainer]),
        *unknown("configuration", [configuration], content["configurations"]),
        *fold_problems(folders, [str(fold)]),
    ]
    if not problems:
        problems = [*data_problems(folders, content, plans, [configuration], [trainer])]
    raise_if_any("The training cannot start:", problems)
    if pretrained_weights is not None:
        check_pretrained_weights([PRETRAINED, str(pretrained_weights)])
    job = Job(folders, trainer, configuration, str(fold), 0, plans)
    with our_trainers(), process_group(place.type):
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
            device=place,
        )
    return job.folder


@contextmanager
def our_trainers() -> Iterator[None]:
    """Inside the block, nnU-Net finds our trainers."""
    before = os.environ.get(EXTERNAL)
    os.environ[EXTERNAL] = trainer_folders()
    try:
        yield
    finally:
        if before is None:
            del os.environ[EXTERNAL]
        else:
            os.environ[EXTERNAL] = before
