"""Two models of the phantom, and a pool of images to label."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from semi_nnunet.deploy.trained import TrainedModel, find_model
from semi_nnunet.discovery.register import trainer_folders
from semi_nnunet.util.files import write_json


@dataclass
class Pool:
    """What the tests label.

    Args:
        images: folder of the pool.
        models: of the same data set, with other weights.
        raw: the data set.
        out: where labels go.
    """

    images: Path
    models: list[TrainedModel]
    raw: Path
    out: Path

    @property
    def names(self) -> list[str]:
        return [str(model.folder) for model in self.models]


@pytest.fixture
def pool(make_trainer, prepared_dataset, tmp_path, monkeypatch) -> Pool:
    """Models that see something in an image, without a training."""
    monkeypatch.setenv("nnUNet_extTrainer", trainer_folders())  # for nnU-Net's own prediction
    dataset, models = prepared_dataset("labels", 1), []
    for seed in (0, 1):
        trainer = make_trainer("SemiBaselineTrainer", seed=seed)
        folder = tmp_path / dataset.raw.name / f"SemiBaselineTrainer__seed{seed}__2d"
        models.append(save_trained_model(trainer, folder, seed))
    images = tmp_path / "images"
    shutil.copytree(dataset.raw / "imagesUn", images)
    return Pool(images, models, dataset.raw, tmp_path / "labelled")


@pytest.fixture
def cascade(make_trainer, prepared_cascade, tmp_path, monkeypatch) -> Pool:
    """Both stages of a cascade, the second one first, and a pool to label."""
    monkeypatch.setenv("nnUNet_extTrainer", trainer_folders())
    dataset, models, name = prepared_cascade(), [], "SemiBaselineTrainer"
    for stage in ("3d_cascade_fullres", "3d_lowres"):
        trainer = make_trainer(name, stage, dataset=dataset, start=False)
        trainer.initialize()
        folder = tmp_path / dataset.raw.name / f"{name}__nnUNetPlans__{stage}"
        models.append(save_trained_model(trainer, folder, seed=1))
    shutil.copytree(dataset.raw / "imagesUn", tmp_path / "images")
    return Pool(tmp_path / "images", models, dataset.raw, tmp_path / "labelled")


def save_trained_model(trainer, folder: Path, seed: int) -> TrainedModel:
    """Fold 0 of a model, whose network sees something."""
    torch.manual_seed(seed)
    for parameter in trainer.network.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    (folder / "fold_0").mkdir(parents=True)
    trainer.save_checkpoint(str(folder / "fold_0" / "checkpoint_final.pth"))
    write_json(folder / "dataset.json", trainer.dataset_json)
    write_json(folder / "plans.json", trainer.plans_manager.plans)
    return find_model(str(folder))


@pytest.fixture
def raw(pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The phantom in raw and preprocessed folders of the test's own."""
    return copy_dataset(pool, tmp_path, monkeypatch)


@pytest.fixture
def cascade_raw(cascade: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same of the cascade, with two folds."""
    raw = copy_dataset(cascade, tmp_path, monkeypatch)
    cases = [f"phantom_{number:04d}" for number in range(5)]
    two = [{"train": cases[2:], "val": cases[:2]}, {"train": cases[:2], "val": cases[2:]}]
    (tmp_path / "preprocessed" / raw.name).mkdir()
    write_json(tmp_path / "preprocessed" / raw.name / "splits_final.json", two)
    return raw


def copy_dataset(pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("raw", "preprocessed"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
        (tmp_path / name).mkdir()
    shutil.copytree(pool.raw, tmp_path / "raw" / pool.raw.name)
    return tmp_path / "raw" / pool.raw.name
