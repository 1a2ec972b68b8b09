"""Trainers on tiny phantom data sets."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from semi_nnunet.discovery.classes import trainer_classes
from semi_nnunet.raw.classes import get_declared_classes
from semi_nnunet.training import run_log
from semi_nnunet.training.trainer import SemiTrainer
from semi_nnunet.util.files import write_json

SHORT = {"epochs": 4, "steps_per_epoch": 2, "validation_steps_per_epoch": 1, "save_every_epochs": 1}
TRAINERS = {name: cls for name, cls in trainer_classes().items() if cls.segments}
DEFAULT_MODEL = TRAINERS["SemiDistillationTrainer"].taught_by
UNLABELLED_TRAINERS = {name: cls for name, cls in TRAINERS.items() if cls.uses_unlabelled}
WITHOUT_RAMP = {"ramp_up": "constant", "unlabelled_start_steps": 0}
QUICK = ("SemiMeanTeacherTrainer", "SemiCPSTrainer")  # one with a teacher, one with two students


def each_of(names: Iterable[str]) -> Any:
    """Parametrise ``name`` over all trainers; the quick run uses two of them."""
    slow = pytest.mark.slow
    found = [pytest.param(name, marks=() if name in QUICK else slow) for name in names]
    return pytest.mark.parametrize("name", found)


def partially_annotated(dataset: Any, kind: str = "labels") -> Any:
    """Prepare a phantom data set in which all cases but one annotate two of three classes."""
    some = ["large", "small"] if "regions" not in kind else ["all_organs", "inner"]
    entry = {
        "phantom_*": some,
        "phantom_0003": list(get_declared_classes(dataset.dataset_json["labels"])),
    }
    description = {**dataset.dataset_json, "annotated": entry}
    return SimpleNamespace(plans=dataset.plans, dataset_json=description)


@pytest.fixture
def make_trainer(
    prepared_dataset: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """``make_trainer(trainer, configuration, kind, channels, fold, dataset, **settings)``.

    Settings of a method are sorted into its own section. Results go to the test's own folder.
    """
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    # pictures take longer than the steps of a law; test_history_picture.py draws them
    monkeypatch.setattr(run_log, "write_history_picture", lambda history, path: None)

    def make(
        trainer: str | type[SemiTrainer],
        configuration: str = "2d",
        kind: str = "labels",
        channels: int = 1,
        fold: int | str = 0,
        dataset: Any = None,
        start: bool = True,
        device: str = "cpu",
        **settings: Any,
    ) -> SemiTrainer:
        trainer_class = trainer_classes()[trainer] if isinstance(trainer, str) else trainer
        dataset = dataset or prepared_dataset(kind, channels)
        plans = dataset.plans
        plans["semi"] = {trainer_class.__name__: {**SHORT, **settings}}
        if trainer_class is TRAINERS["SemiDistillationTrainer"] and "models" not in settings:
            train_default_model(plans, configuration, fold, dataset.dataset_json)
        made = trainer_class(plans, configuration, fold, dataset.dataset_json, torch.device(device))
        made.logger.plot_progress_png = lambda folder: None  # nnU-Net's picture takes half a second
        made.plot_network_architecture = lambda: None
        if start:
            made.on_train_start()
            made.on_train_epoch_start()
        return made

    return make


def train_default_model(plans: Any, configuration: str, fold: int | str, description: Any) -> None:
    """Train the model that SemiDistillationTrainer learns from for one step."""
    teacher = TRAINERS[DEFAULT_MODEL]
    plans = {**plans, "semi": {DEFAULT_MODEL: {**SHORT, "seed": 7}}}
    made = teacher(plans, configuration, fold, description, torch.device("cpu"))
    path = Path(made.output_folder) / "checkpoint_final.pth"
    if not path.is_file():
        made.initialize()
        save_as_trained(made)


def save_as_trained(trainer: SemiTrainer) -> Path:
    """Save a trainer as if its fold were done; return TRAINER__PLANS__CONFIGURATION."""
    trainer.save_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
    folder = Path(trainer.output_folder_base)
    write_json(folder / "plans.json", trainer.plans_manager.plans)
    write_json(folder / "dataset.json", trainer.dataset_json)
    return folder


def weights_of(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return a copy of all weights."""
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def same_weights(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Return whether weights are bit-identical."""
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


def run_epochs(trainer: SemiTrainer, last: int) -> None:
    """Train until ``last`` epochs are done, then stop as if killed after that epoch."""
    trainer.on_train_start()
    for _ in range(trainer.current_epoch, last):
        trainer.on_epoch_start()
        trainer.on_train_epoch_start()
        trainer.on_train_epoch_end(
            [
                trainer.train_step(next(trainer.dataloader_train))
                for _ in range(trainer.num_iterations_per_epoch)
            ]
        )
        with torch.no_grad():
            trainer.on_validation_epoch_start()
            trainer.on_validation_epoch_end([trainer.validation_step(next(trainer.dataloader_val))])
        trainer.on_epoch_end()
