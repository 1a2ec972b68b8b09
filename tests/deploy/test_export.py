"""What can be said of export without a trained model."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest

from semi_nnunet.deploy import export
from semi_nnunet.deploy.export import NamedModel, export_model, trained_folds, zip_folder
from semi_nnunet.util.errors import DiskError, UserError
from semi_nnunet.util.files import write_json


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NamedModel:
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    model = NamedModel("Dataset001_X", "2d", "SemiMeanTeacherTrainer", "nnUNetPlans")
    folder = tmp_path / "results" / model.relative_folder(model.trainer)
    for fold in ("0", "3", "all"):
        (folder / f"fold_{fold}").mkdir(parents=True)
        (folder / f"fold_{fold}" / "checkpoint_final.pth").touch()
    (folder / "fold_1").mkdir()
    return model


def test_finished_folds_are_found(model: NamedModel) -> None:
    assert list(trained_folds(model, None, "checkpoint_final.pth")) == ["0", "3", "all"]
    assert list(trained_folds(model, ["3"], "checkpoint_final.pth")) == ["3"]


def test_unfinished_folds_are_named(model: NamedModel) -> None:
    with pytest.raises(UserError) as error:
        trained_folds(model, ["0", "1", "2"], "checkpoint_final.pth")
    assert [problem.where for problem in error.value.problems] == ["fold 1", "fold 2"]
    with pytest.raises(UserError, match=r"no checkpoint_best\.pth"):
        trained_folds(model, None, "checkpoint_best.pth")


def test_an_existing_target_is_refused(model: NamedModel, tmp_path: Path) -> None:
    model.exported_to(tmp_path / "out").mkdir(parents=True)
    with pytest.raises(UserError, match="exists already"):
        export_model(model, tmp_path / "out")


def test_the_zip_has_paths_as_nnunet_installs_them(tmp_path: Path) -> None:
    folder = tmp_path / "Dataset001_X" / "nnUNetTrainer__nnUNetPlans__2d"
    (folder / "fold_0").mkdir(parents=True)
    (folder / "fold_0/checkpoint_final.pth").touch()
    (folder / "plans.json").touch()
    zip_folder(folder, folder.relative_to(tmp_path), tmp_path / "model.zip")
    root = f"Dataset001_X/{folder.name}"
    names = zipfile.ZipFile(tmp_path / "model.zip").namelist()
    assert names == [f"{root}/fold_0/checkpoint_final.pth", f"{root}/plans.json"]


@pytest.mark.parametrize("step", ["fill_model", "zip_folder"])
def test_a_full_disk_exports_nothing(
    model: NamedModel, step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(of: NamedModel, found: Any, plans: Any, aside: Path) -> None:
        aside.mkdir(parents=True)
        write_json(aside / "plans.json", {})

    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    write_json(model.folder / "plans.json", {})
    monkeypatch.setattr(export, "require_stock_network", lambda *_: None)
    monkeypatch.setattr(export, "fill_model", fill)
    monkeypatch.setattr(export, step, full)
    target = model.exported_to(tmp_path / "out")
    with pytest.raises(DiskError, match=rf"{target}.*Nothing was exported\. Fix: free some space"):
        export_model(model, tmp_path / "out")
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
