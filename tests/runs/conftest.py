"""The phantom and a cascade with plans that train in a second; tasks and a recipe."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from semi_nnunet.runs.folders import Folders
from semi_nnunet.runs.launching import JobWork
from semi_nnunet.util.files import write_json
from tests.datasets.converting import write_picture
from tests.runs.tasks import Task, run_code_as_commands
from tests.runs.tiny import with_tiny_plans
from tests.runs.tiny_recipe import RECIPE


@pytest.fixture
def folders(prepared_dataset, tmp_path, monkeypatch) -> Folders:
    """The phantom with plans "tiny"; results in the test's own folder."""
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    yield from with_tiny_plans(prepared_dataset("labels", 1), tmp_path / "results")


@pytest.fixture
def empty(tmp_path) -> Folders:
    """Make the folders of a data set that contain only dataset.json."""
    roots = [tmp_path / name / "Dataset500_Empty" for name in ("raw", "preprocessed", "results")]
    for root in roots:
        root.mkdir(parents=True)
    for root in roots[:2]:
        write_json(root / "dataset.json", {"file_ending": ".nii.gz", "numTraining": 7})
    return Folders(*roots)


@pytest.fixture
def cascade(prepared_cascade, tmp_path, monkeypatch) -> Folders:
    """The same of the data set with 3d_lowres and 3d_cascade_fullres."""
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    yield from with_tiny_plans(prepared_cascade(), tmp_path / "results")


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JobWork:
    """Make jobs: "second" waits for the others, and one of them fails; "done" is done."""
    run_code_as_commands(monkeypatch)
    monkeypatch.setattr("semi_nnunet.runs.local.LOOK_EVERY_S", 0.05)
    names = ["second", "first_bad", "first", "done"]
    tasks = [Task(tmp_path, name) for name in names]
    needs = {tasks[0]: [tasks[1], tasks[2], tasks[3]]}
    return JobWork(("semi_nnunet", "crossval", "-d", "7"), tasks, [0, 1, 2], tmp_path, needs)


@pytest.fixture
def recipe_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe, the pictures it asks for, and nnU-Net's folders."""
    rng = np.random.default_rng(0)
    for i in range(10):
        mask = np.zeros((144, 144, 3), np.uint8)  # 96 x 96 show too little
        mask[30:110, 50 : 90 + 5 * i] = 255
        picture = np.clip(rng.normal(100, 30, mask.shape) + mask / 4, 0, 255).astype(np.uint8)
        write_picture(tmp_path / f"files/images/cju{i:02d}.jpg", picture, quality=90)
        write_picture(tmp_path / f"files/masks/cju{i:02d}.jpg", mask, quality=60)
    (tmp_path / "files/kavsir_bboxes.json").write_text("{}")
    (tmp_path / "recipe.json").write_text(json.dumps(RECIPE))
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
        (tmp_path / name).mkdir()
    monkeypatch.setenv("nnUNet_compile", "f")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    return tmp_path
