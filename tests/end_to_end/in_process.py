"""Commands that run in the process of the test, so that a training takes a second."""

from __future__ import annotations

import importlib
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nnunetv2.evaluation.evaluate_predictions as stock_evaluation
import nnunetv2.training.nnUNetTrainer.nnUNetTrainer as stock_training
import numpy as np
import pytest
import torch
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (
    ExperimentPlanner,
)
from nnunetv2.training.logging.nnunet_logger import LocalLogger

from semi_nnunet.discovery.register import trainer_folders
from semi_nnunet.runs.commands import ENTRY_POINTS
from semi_nnunet.runs.launching import JobLauncher, JobWork
from semi_nnunet.training import run_log
from semi_nnunet.util.command import Command
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.lock import held
from semi_nnunet.workflows import crossval
from tests.conftest import no_processes


class _Pool:
    """Does the work of a pool of processes at once."""

    _pool: tuple[()] = ()

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def starmap(self, function: Callable[..., Any], jobs: Any) -> list[Any]:
        return [function(*job) for job in jobs]

    def starmap_async(self, function: Callable[..., Any], jobs: Any) -> Any:
        results = self.starmap(function, jobs)
        return SimpleNamespace(ready=lambda: True, get=lambda: results)


def run_in_process(words: Command) -> None:
    """Run a command of nnU-Net or of this package here.

    Raises:
        UserError: it failed for a reason that its user can correct.
    """
    name, *others = map(str, words)
    if name == "nnUNetv2_predict":
        for option in ("-npp", "-nps"):
            others[others.index(option) + 1] = "0"  # nnU-Net's word for: without processes
    module, function = ENTRY_POINTS[name]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [name, *others])
        patch.setenv("nnUNet_extTrainer", trainer_folders())
        set_seeds()  # nnU-Net's own trainers set none
        if code := getattr(importlib.import_module(module), function)():
            raise UserError(f"{' '.join(sys.argv)} ended with {code}")


def set_seeds() -> None:
    """Let every command draw the same numbers."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def _run_work(launcher: JobLauncher, work: JobWork) -> bool:
    """Run the unfinished jobs one after another."""
    for index in work.unfinished:
        job = work.jobs[index]
        if not job.is_done:
            with held(job.lock):
                for words in job.commands("cpu", 1):
                    run_in_process(words)
    return True


@contextmanager
def all_in_process() -> Iterator[None]:
    """Let verbs, jobs of ``crossval`` and nnU-Net start no processes inside the block."""
    without_processes = SimpleNamespace(get_context=lambda method: SimpleNamespace(Pool=_pool))
    with pytest.MonkeyPatch.context() as patch, no_processes():
        for module in (stock_training, stock_evaluation):
            patch.setattr(module, "multiprocessing", without_processes)
        patch.setattr(crossval, "run_work", _run_work)
        patch.setattr(run_log, "write_history_picture", lambda history, path: None)
        trainer = stock_training.nnUNetTrainer
        patch.setattr(trainer, "plot_network_architecture", lambda self: None)
        patch.setattr(LocalLogger, "plot_progress_png", _leave_no_picture)
        patch.setattr(ExperimentPlanner, "__init__", _plan_few_features(ExperimentPlanner.__init__))
        yield


def _plan_few_features(initialise: Callable[..., None]) -> Callable[..., None]:
    """Let nnU-Net plan networks of 4 features, which train and predict in a moment."""

    @wraps(initialise)
    def initialise_small(self: Any, *arguments: Any, **options: Any) -> None:
        initialise(self, *arguments, **options)
        self.UNet_base_num_features = 4

    return initialise_small


def _leave_no_picture(logger: Any, folder: str) -> None:
    Path(folder, "progress.png").touch()


def _pool(processes: int = 1) -> _Pool:
    return _Pool()
