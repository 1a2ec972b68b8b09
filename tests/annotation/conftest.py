"""A small data set whose unlabelled images have labels that only an oracle knows."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from semi_nnunet.datasets.phantom import write_phantom_dataset
from tests.conftest import no_processes
from tests.pseudo_labels.conftest import pool as pool  # two models that are not trained

NAME = "Dataset977_Loop"
LABELLED, HIDDEN = 4, 4


@dataclass(frozen=True)
class Loop:
    """The data set in folders of a test, and the hidden labels."""

    root: Path

    @property
    def raw(self) -> Path:
        return self.root / "raw" / NAME

    @property
    def preprocessed(self) -> Path:
        return self.root / "preprocessed" / NAME

    @property
    def results(self) -> Path:
        return self.root / "results" / NAME

    @property
    def reviewed(self) -> Path:
        return self.root / "reviewed"

    @property
    def arrays(self) -> Path:
        return self.preprocessed / "nnUNetPlans_2d"

    def review(self, *cases: int) -> list[str]:
        """Have the oracle label cases; return their names."""
        self.reviewed.mkdir(exist_ok=True)
        names = [f"phantom_{case:04d}" for case in cases]
        for name in names:
            shutil.copy(self.root / "hidden" / f"{name}.nii.gz", self.reviewed)
        return names

    def propose(self, name: str, folder: str = "proposals") -> Path:
        """Write a proposal with an error of 5 voxels."""
        image = sitk.ReadImage(str(self.root / "hidden" / f"{name}.nii.gz"))
        voxels = sitk.GetArrayFromImage(image)
        flat = voxels.reshape(-1)
        flat[:5] = 1 - np.minimum(flat[:5], 1)
        wrong = sitk.GetImageFromArray(voxels)
        wrong.CopyInformation(image)
        path = self.root / folder / f"{name}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        sitk.WriteImage(wrong, str(path))
        return path

    def snapshot(self) -> dict[str, bytes]:
        """Return every visible file of the data set and its bytes."""
        return {
            str(path.relative_to(self.root)): path.read_bytes()
            for folder in (self.raw, self.preprocessed)
            for path in sorted(folder.rglob("*"))
            if path.is_file() and not path.name.startswith(".") and ".annotation" not in path.parts
        }

    def read(self, path: str) -> object:
        return json.loads((self.root / path).read_text())


@pytest.fixture(scope="session")
def loop_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4 labelled and 4 unlabelled cases, preprocessed in 2D with folds."""
    from semi_nnunet.cli.main import main

    root = tmp_path_factory.mktemp("loop")
    loop = Loop(root)
    write_phantom_dataset(
        loop.raw, labelled=LABELLED + HIDDEN, unlabelled=0, test=1, shape=(4, 24, 24)
    )
    (root / "hidden").mkdir()
    for number in range(LABELLED, LABELLED + HIDDEN):
        name = f"phantom_{number:04d}"
        (loop.raw / "imagesTr" / f"{name}_0000.nii.gz").rename(
            loop.raw / "imagesUn" / f"{name}_0000.nii.gz"
        )
        (loop.raw / "labelsTr" / f"{name}.nii.gz").rename(root / "hidden" / f"{name}.nii.gz")
    description = json.loads((loop.raw / "dataset.json").read_text())
    description["numTraining"] = LABELLED
    (loop.raw / "dataset.json").write_text(json.dumps(description))
    (root / "results").mkdir()
    with pytest.MonkeyPatch.context() as patch, no_processes():
        set_folders(patch, root)
        assert main(["preprocess", "-d", "977", "-np", "1", "-c", "2d"]) == 0
    cases = [f"phantom_{number:04d}" for number in range(LABELLED)]
    folds = [{"train": [c for c in cases if c not in v], "val": v} for v in (cases[:2], cases[2:])]
    (loop.preprocessed / "splits_final.json").write_text(json.dumps(folds, indent=4))
    return root


@pytest.fixture
def loop(loop_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loop:
    """A copy of the data set for one test."""
    return copy_loop(loop_template, tmp_path / "loop", monkeypatch)


def copy_loop(template: Path, root: Path, patch: pytest.MonkeyPatch) -> Loop:
    shutil.copytree(template, root)
    set_folders(patch, root)
    return Loop(root)


def set_folders(patch: pytest.MonkeyPatch, root: Path) -> None:
    for name in ("raw", "preprocessed", "results"):
        patch.setenv(f"nnUNet_{name}", str(root / name))
