"""The work of a benchmark, and trainers that are ready for their first step."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch

from semi_nnunet.discovery.classes import find_trainer_class
from semi_nnunet.raw.layout import DATASET_JSON, FINAL_CHECKPOINT, PLANS_JSON
from semi_nnunet.raw.plans import read_plans
from semi_nnunet.runs.folders import ALL, find_folders
from semi_nnunet.training.trainer import SemiTrainer
from semi_nnunet.util.environment import variable
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.failures import is_of_memory
from semi_nnunet.util.files import read_json, write_json

STOCK = "nnUNetTrainer"
TOO_LARGE = (
    "too little memory, also without other trainers. Fix: smaller patches (semi_nnunet plan)"
)
IN_FULL = {"ramp_up": "constant", "unlabelled_start_steps": 0}  # all terms from the first step on


@dataclass(frozen=True)
class Work:
    """The work of a benchmark, and its device.

    Args:
        dataset: number or name.
        configuration: such as "3d_fullres".
        plans: identifier.
        device: of torch.
        threads: of torch on the CPU.
        rounds: steps of every trainer.
    """

    dataset: str
    configuration: str
    plans: str
    device: str
    threads: int
    rounds: int


@contextmanager
def silent_scratch_results() -> Iterator[None]:
    """Redirect results to a temporary folder inside the block, and silence nnU-Net's output."""
    with (
        tempfile.TemporaryDirectory() as folder,
        open(os.devnull, "w", encoding="utf-8") as devnull,
        variable("nnUNet_results", folder),
        redirect_stdout(devnull),
        redirect_stderr(devnull),
    ):
        yield


def start_trainer(work: Work, name: str, **settings: Any) -> Any:
    """Return a trainer of fold "all" before its first step, inside :func:`silent_scratch_results`.

    Its settings are those of the plans, except that unlabelled terms have their full weight from
    the first step on. A trainer that needs a trained model gets random weights, which cost as much.

    Args:
        work: of the benchmark.
        name: of a trainer of ours, of nnU-Net's, or in ``nnUNet_extTrainer``.
        settings: of a trainer built on ours, instead of those of the plans.

    Returns:
        The trainer; ``train_step(next(dataloader_train))`` runs a step.

    Raises:
        UserError: it cannot train on these data.
    """
    folders = find_folders(work.dataset)
    plans = read_plans(folders.preprocessed, work.plans)
    description = read_json(folders.preprocessed / DATASET_JSON)
    if teacher := getattr(find_trainer_class(name), "taught_by", None):
        save_untrained(build_trainer(replace(work, device="cpu"), teacher, plans, description))
    if torch.device(work.device).type == "cuda":  # as in nnU-Net's trainings
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = False, True
    trainer = build_trainer(work, name, plans, description, **settings)
    trainer.plot_network_architecture = lambda: None
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    return trainer


def build_trainer(
    work: Work, name: str, plans: dict[str, Any], description: dict[str, Any], **settings: Any
) -> Any:
    """Return a trainer whose unlabelled terms have their full weight at once."""
    trainer_class: Any = find_trainer_class(name)
    plans, device, fold = copy.deepcopy(plans), torch.device(work.device), cast(int, ALL)
    if issubclass(trainer_class, SemiTrainer):
        own = plans.setdefault("semi", {}).setdefault(name, {})
        own[work.configuration] = {**own.get(work.configuration, {}), **IN_FULL, **settings}
    else:
        plans["continue_training"] = False
    return trainer_class(plans, work.configuration, fold, description, device)


def save_untrained(trainer: SemiTrainer) -> None:
    """Save a trainer as if its fold had been trained."""
    trainer.initialize()
    folder = Path(trainer.output_folder)
    folder.mkdir(parents=True, exist_ok=True)
    trainer.save_checkpoint(str(folder / FINAL_CHECKPOINT))
    write_json(folder.parent / PLANS_JSON, trainer.plans_manager.plans)
    write_json(folder.parent / DATASET_JSON, trainer.dataset_json)


def describe_failure(error: Exception) -> str:
    """Return why a trainer could not be measured.

    Raises:
        Exception: the error is a fault of this program.
    """
    if isinstance(error, UserError):
        return str(error)
    if is_of_memory(error):
        return TOO_LARGE
    raise error
