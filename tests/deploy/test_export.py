"""Export, without a trained model."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest

from semi_nnunet.cli.main import main
from semi_nnunet.deploy import export
from semi_nnunet.deploy.export import zip_folder
from semi_nnunet.deploy.trained import TrainedModel
from semi_nnunet.util.errors import DiskError, UserError
from semi_nnunet.util.files import write_json

NAME = "Dataset001_X/SemiMeanTeacherTrainer__nnUNetPlans__2d"
STOCK = "Dataset001_X/nnUNetTrainer__nnUNetPlans_SemiMeanTeacherTrainer__2d"


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A training folder whose fold 1 is not finished."""
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    folder = tmp_path / "results" / NAME
    for fold in ("0", "1", "3", "all"):
        (folder / f"fold_{fold}").mkdir(parents=True)
        (folder / f"fold_{fold}" / "checkpoint_final.pth").touch()
    (folder / "fold_1/checkpoint_final.pth").rename(folder / "fold_1/checkpoint_latest.pth")
    write_json(folder / "plans.json", {"plans_name": "nnUNetPlans", "configurations": {"2d": {}}})
    labels, channels = {"background": 0, "organ": 1}, {"0": "CT"}
    description = {"labels": labels, "channel_names": channels, "file_ending": ".nii.gz"}
    write_json(folder / "dataset.json", description)
    return folder


@pytest.fixture
def exported_folds(model: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The folds of each export, of which nothing but the plans is written."""
    folds: list[tuple[str, ...]] = []

    def fill(of: TrainedModel, identifier: str, aside: Path) -> None:
        folds.append(of.folds)
        aside.mkdir(parents=True)
        write_json(aside / "plans.json", {})

    monkeypatch.setattr(export, "require_stock_network", lambda *_: None)
    monkeypatch.setattr(export, "load_model", lambda _: None)
    monkeypatch.setattr(export, "write_exported_model", fill)
    return folds


def test_finished_folds_are_exported(exported_folds: list[Any], tmp_path: Path) -> None:
    export.export_model(NAME, tmp_path / "a")
    export.export_model(NAME, tmp_path / "b", folds=["3"])
    export.export_model(f"{NAME}/fold_all", tmp_path / "c")
    export.export_model(NAME, tmp_path / "d", checkpoint="checkpoint_latest.pth")
    assert exported_folds == [("0", "3"), ("3",), ("all",), ("1",)]


def test_unfinished_folds_are_reported(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        export.export_model(NAME, tmp_path / "out", folds=["0", "1", "2"])
    assert [problem.where for problem in error.value.problems] == ["fold 1", "fold 2"]
    with pytest.raises(UserError, match=r"checkpoint_best\.pth"):
        export.export_model(NAME, tmp_path / "out", checkpoint="checkpoint_best.pth")


def test_an_existing_target_is_refused(model: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / STOCK).mkdir(parents=True)
    with pytest.raises(UserError, match="exists already"):
        export.export_model(NAME, tmp_path / "out")


@pytest.mark.parametrize("names", [["-d", "1", "-c", "2d"], ["-m", NAME]])
def test_a_model_is_given_by_its_folder_or_its_parts(
    names: list[str], exported_folds: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = [] if "-m" in names else ["-tr", "SemiMeanTeacherTrainer"]
    assert main(["export", *names, *more, "-o", str(tmp_path / "out")]) == 0
    assert f"-d {NAME.partition('/')[0]} -c 2d -p nnUNetPlans_Semi" in capsys.readouterr().out
    assert (tmp_path / "out" / STOCK).is_dir()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["-m", NAME, "-tr", "SemiBaselineTrainer"], "-d, -c, -tr and -p, or -m"),
        ([], "give -m MODEL, or -d, -c and -tr"),
        (["-d", "1", "-c", "3d_fullres"], "none matches; trained are: SemiMeanTeacherTrainer__"),
    ],
)
def test_wrong_names_of_a_model_are_refused(
    names: list[str], message: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", *names, "-o", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", ["dataset.json", "dataset_fingerprint.json"])
@pytest.mark.parametrize("content", ["", '{"labels": {"backgr'])
def test_a_torn_description_is_not_exported(
    name: str, content: str, model: Path, exported_folds: list[Any], tmp_path: Path
) -> None:
    (model / name).write_text(content)
    with pytest.raises(UserError, match=f"{name}.* not valid JSON"):
        export.export_model(NAME, tmp_path / "out")
    assert exported_folds == [] and not (tmp_path / "out").exists()


def test_the_zip_has_the_paths_that_nnunet_installs(tmp_path: Path) -> None:
    folder = tmp_path / "Dataset001_X" / "nnUNetTrainer__nnUNetPlans__2d"
    (folder / "fold_0").mkdir(parents=True)
    (folder / "fold_0/checkpoint_final.pth").touch()
    (folder / "plans.json").touch()
    zip_folder(folder, folder.relative_to(tmp_path), tmp_path / "model.zip")
    root = f"Dataset001_X/{folder.name}"
    names = zipfile.ZipFile(tmp_path / "model.zip").namelist()
    assert names == [f"{root}/fold_0/checkpoint_final.pth", f"{root}/plans.json"]


@pytest.mark.parametrize("step", ["write_exported_model", "zip_folder"])
def test_a_full_disk_exports_nothing(
    exported_folds: list[Any], step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, step, full)
    target = tmp_path / "out" / STOCK
    with pytest.raises(DiskError, match=rf"{target}.*Nothing was exported"):
        export.export_model(NAME, tmp_path / "out")
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
