"""What is measured, and trainers that stand before their first step, for that."""

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
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from semi_nnunet.discovery.classes import trainer_classes
from semi_nnunet.raw.plans import read_plans
from semi_nnunet.runs.folders import ALL, find_folders
from semi_nnunet.training.trainer import SemiTrainer
from semi_nnunet.util.environment import variable
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.failures import is_of_memory
from semi_nnunet.util.files import read_json, write_json

STOCK = "nnUNetTrainer"
TOO_LARGE = "too little memory for it, also alone. Fix: smaller patches (semi_nnunet plan)"
IN_FULL = {"ramp_up": "constant", "unlabelled_start_steps": 0}  # every term from the first step on


@dataclass(frozen=True)
class Work:
    """What a training does, and where.

    Args:
        dataset: number or name.
        configuration: such as "3d_fullres".
        plans: identifier.
        device: that torch knows.
        threads: of torch on the CPU.
        rounds: in which every trainer has a step.
    """

    dataset: str
    configuration: str
    plans: str
    device: str
    threads: int
    rounds: int


@contextmanager
def aside() -> Iterator[None]:
    """In the block, results go to a temporary folder, and what nnU-Net prints goes nowhere."""
    with (
        tempfile.TemporaryDirectory() as folder,
        open(os.devnull, "w", encoding="utf-8") as nothing,
        variable("nnUNet_results", folder),
        redirect_stdout(nothing),
        redirect_stderr(nothing),
    ):
        yield


def ready(work: Work, name: str, **settings: Any) -> Any:
    """A trainer of fold "all" before its first step; :func:`aside` is around it.

    Its settings are those of the plans, but for the ramp of the unlabelled terms, which count in
    full at once. One that needs a trained model has one with random weights, which costs as much.

    Args:
        work: what it trains on.
        name: of a trainer of ours, or nnU-Net's own.
        settings: of a trainer of ours, in place of those of the plans.

    Returns:
        The trainer; ``train_step(next(dataloader_train))`` is a step of it.

    Raises:
        UserError: it cannot train there; with the reason.
    """
    folders = find_folders(work.dataset)
    plans = read_plans(folders.preprocessed, work.plans)
    description = read_json(folders.preprocessed / "dataset.json")
    trainer_class = trainer_classes().get(name, nnUNetTrainer)
    if taught_by := getattr(trainer_class, "taught_by", None):
        save_untrained(made(replace(work, device="cpu"), taught_by, plans, description))
    if torch.device(work.device).type == "cuda":  # as nnU-Net's trainings do
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = False, True
    trainer = made(work, name, plans, description, **settings)
    trainer.plot_network_architecture = lambda: None
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    return trainer


def made(
    work: Work, name: str, plans: dict[str, Any], description: dict[str, Any], **settings: Any
) -> Any:
    """A trainer whose unlabelled terms count in full at once."""
    plans, device, fold = copy.deepcopy(plans), torch.device(work.device), cast(int, ALL)
    if name not in trainer_classes():
        plans["continue_training"] = False
        return nnUNetTrainer(plans, work.configuration, fold, description, device)
    sections = plans.setdefault("semi", {}).setdefault(name, {})
    sections[work.configuration] = {**sections.get(work.configuration, {}), **IN_FULL, **settings}
    return trainer_classes()[name](plans, work.configuration, fold, description, device)


def save_untrained(trainer: SemiTrainer) -> None:
    """Save a trainer as if its fold were done."""
    trainer.initialize()
    folder = Path(trainer.output_folder)
    folder.mkdir(parents=True, exist_ok=True)
    trainer.save_checkpoint(str(folder / "checkpoint_final.pth"))
    write_json(folder.parent / "plans.json", trainer.plans_manager.plans)
    write_json(folder.parent / "dataset.json", trainer.dataset_json)


def said(error: Exception) -> str:
    """Why a trainer could not be measured.

    Raises:
        Exception: it is a fault of this program.
    """
    if isinstance(error, UserError):
        return str(error)
    if is_of_memory(error):
        return TOO_LARGE
    raise error
