"""Law f: the exported model gives the same logits in stock nnU-Net, without this package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from semi_nnunet.cli.main import main
from semi_nnunet.training.prediction import ready_to_predict
from tests.trainers import TRAINERS, each_of, run_epochs

PREDICT_WITHOUT_US = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "semi_nnunet":
            raise ModuleNotFoundError(f"{name} is uninstalled in this test")

sys.meta_path.insert(0, Refuse())
import numpy as np, torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
predictor = nnUNetPredictor(use_mirroring=True, device=torch.device("cpu"), allow_tqdm=False)
predictor.initialize_from_trained_model_folder(sys.argv[1], ("0",), "checkpoint_final.pth")
image = torch.from_numpy(np.load(sys.argv[2]))
np.save(sys.argv[3], predictor.predict_logits_from_preprocessed_data(image).numpy())
"""


def export(trainer, out: Path) -> Path:
    name = type(trainer).__name__
    dataset, configuration = trainer.plans_manager.dataset_name, trainer.configuration_name
    command = ["export", "-d", dataset, "-c", configuration, "-tr", name, "-o", str(out)]
    assert main(command) == 0
    return next(out.glob("Dataset*/nnUNetTrainer__*"))


@pytest.mark.law("f")
@each_of(TRAINERS)
@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_exported_model_gives_the_same_logits(name, configuration, make_trainer, tmp_path):
    trainer = make_trainer(name, configuration, start=False, epochs=1)
    run_epochs(trainer, 1)
    trainer.on_train_end()
    folder = export(trainer, tmp_path / "exported")
    image = torch.randn((1, 12, 32, 32), generator=torch.Generator().manual_seed(0))
    stock = nnUNetPredictor(use_mirroring=True, device=torch.device("cpu"), allow_tqdm=False)
    stock.initialize_from_trained_model_folder(str(folder), ("0",), "checkpoint_final.pth")
    assert stock.trainer_name == "nnUNetTrainer"
    ours = nnUNetPredictor(use_mirroring=True, device=torch.device("cpu"), allow_tqdm=False)
    with trainer.as_network(trainer.prediction_network()):
        trainer.set_deep_supervision_enabled(False)
        ours.manual_initialization(
            trainer.network, trainer.plans_manager, trainer.configuration_manager, None,
            trainer.dataset_json, name, trainer.inference_allowed_mirroring_axes,
        )  # fmt: skip
        trainer.network.eval()
        expected = ours.predict_sliding_window_return_logits(image)
    assert torch.equal(stock.predict_logits_from_preprocessed_data(image), expected)


def test_an_average_is_exported_as_folds_that_stock_nnunet_averages(make_trainer, tmp_path):
    trainer = make_trainer("SemiCPSTrainer", start=False, epochs=1, deploy="average")
    run_epochs(trainer, 1)
    trainer.on_train_end()
    folder = export(trainer, tmp_path / "exported")
    assert {path.name for path in folder.glob("fold_*")} == {"fold_0", "fold_1"}
    stock = nnUNetPredictor(use_mirroring=True, device=torch.device("cpu"), allow_tqdm=False)
    stock.initialize_from_trained_model_folder(str(folder), ("0", "1"), "checkpoint_final.pth")
    image = torch.randn((1, 12, 32, 32), generator=torch.Generator().manual_seed(0))
    networks = (trainer.bare_network, trainer.companion("second"))
    expected = 0
    for network in networks:
        with ready_to_predict(network):
            ours = trainer.predictor.nnunet_predictor(network, mirror=True)
            expected = expected + ours.predict_sliding_window_return_logits(image).float()
    logits = stock.predict_logits_from_preprocessed_data(image)
    assert torch.allclose(logits.float(), expected / 2, atol=1e-2)  # nnU-Net's are float16


@pytest.mark.law("f")
def test_export_runs_where_this_package_is_not_installed(make_trainer, tmp_path):
    trainer = make_trainer("SemiMeanTeacherTrainer", start=False, epochs=1)
    run_epochs(trainer, 1)
    trainer.on_train_end()
    folder = export(trainer, tmp_path / "exported")
    assert not any(
        "semi_nnunet" in key or "teacher" in key
        for key in load_checkpoint(folder)["network_weights"]
    )
    image = np.random.default_rng(0).normal(size=(1, 12, 32, 32)).astype(np.float32)
    np.save(tmp_path / "image.npy", image)
    environment = {
        k: v for k, v in os.environ.items() if k not in ("nnUNet_extTrainer", "PYTHONPATH")
    }
    command = [
        sys.executable,
        "-c",
        PREDICT_WITHOUT_US,
        str(folder),
        str(tmp_path / "image.npy"),
        str(tmp_path / "logits.npy"),
    ]
    subprocess.run(command, check=True, env=environment, cwd=tmp_path, capture_output=True)
    stock = nnUNetPredictor(use_mirroring=True, device=torch.device("cpu"), allow_tqdm=False)
    stock.initialize_from_trained_model_folder(str(folder), ("0",), "checkpoint_final.pth")
    expected = stock.predict_logits_from_preprocessed_data(torch.from_numpy(image)).numpy()
    assert np.array_equal(np.load(tmp_path / "logits.npy"), expected)


def test_export_carries_deployed_weights_settings_and_provenance_only(
    make_trainer, tmp_path, monkeypatch
):
    trainer = make_trainer("SemiMeanTeacherTrainer", start=False, epochs=1)
    run_epochs(trainer, 1)
    trainer.on_train_end()
    folder = export(trainer, tmp_path / "exported")
    checkpoint = load_checkpoint(folder)
    assert "semi" not in checkpoint and "optimizer_state" not in checkpoint
    teacher = trainer.companion("teacher").module.state_dict()
    assert all(torch.equal(checkpoint["network_weights"][key], teacher[key]) for key in teacher)
    assert "semi" not in json.loads((folder / "plans.json").read_text())
    record = json.loads((folder / "semi_nnunet.json").read_text())
    assert (
        record["trainer"] == "SemiMeanTeacherTrainer"
        and len(record["folds"]["0"]["source_sha256"]) == 64
    )
    assert record["folds"]["0"]["settings"]["epochs"] == 1
    archive = next((tmp_path / "exported").glob("*.zip"))
    installed = tmp_path / "installed"
    installed.mkdir()
    monkeypatch.setenv("nnUNet_results", str(installed))
    from nnunetv2.model_sharing.model_import import install_model_from_zip_file

    install_model_from_zip_file(str(archive))
    names = {str(path.relative_to(installed)) for path in installed.rglob("*") if path.is_file()}
    assert names == set(zipfile.ZipFile(archive).namelist())
    assert any(
        name.endswith(
            "nnUNetTrainer__nnUNetPlans_SemiMeanTeacherTrainer__2d/fold_0/checkpoint_final.pth"
        )
        for name in names
    )


def test_export_rejects_missing_folds_and_existing_folders(make_trainer, tmp_path, capsys):
    trainer = make_trainer("SemiBaselineTrainer", start=False, epochs=1)
    run_epochs(trainer, 1)
    trainer.on_train_end()
    command = [
        "export",
        "-d",
        trainer.plans_manager.dataset_name,
        "-c",
        "2d",
        "-tr",
        "SemiBaselineTrainer",
        "-o",
        str(tmp_path / "out"),
    ]
    assert main([*command, "-f", "3"]) == 2
    assert "fold 3" in capsys.readouterr().err
    assert main(command) == 0
    assert main(command) == 2
    assert "exists" in capsys.readouterr().err
    (stock,) = (tmp_path / "out").glob("Dataset*/nnUNetTrainer__*")  # without our state
    assert main(["export", "-m", str(stock), "-o", str(tmp_path / "again")]) == 2
    assert "not trained by semi_nnunet" in capsys.readouterr().err


def load_checkpoint(folder: Path) -> dict:
    return torch.load(folder / "fold_0" / "checkpoint_final.pth", weights_only=True)
