"""Two models of the phantom, and a pool of images to label."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from semi_nnunet.deploy.trained import TrainedModel, find_model
from semi_nnunet.discovery.register import trainer_folders
from semi_nnunet.files import write_json


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
        torch.manual_seed(seed)
        for parameter in trainer.network.parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)
        folder = tmp_path / dataset.raw.name / f"SemiBaselineTrainer__seed{seed}__2d"
        (folder / "fold_0").mkdir(parents=True)
        trainer.save_checkpoint(str(folder / "fold_0" / "checkpoint_final.pth"))
        write_json(folder / "dataset.json", trainer.dataset_json)
        write_json(folder / "plans.json", trainer.plans_manager.plans)
        models.append(find_model(str(folder)))
    images = tmp_path / "images"
    shutil.copytree(dataset.raw / "imagesUn", images)
    return Pool(images, models, dataset.raw, tmp_path / "labelled")


@pytest.fixture
def raw(pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The phantom in raw and preprocessed folders of the test's own."""
    for name in ("raw", "preprocessed"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
        (tmp_path / name).mkdir()
    shutil.copytree(pool.raw, tmp_path / "raw" / pool.raw.name)
    return tmp_path / "raw" / pool.raw.name
