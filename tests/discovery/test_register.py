"""nnU-Net finds our trainers, registered or through its variable."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

from semi_nnunet.discovery import register as module
from semi_nnunet.discovery.register import TRAINERS_FOLDER, is_registered, register, unregister
from semi_nnunet.methods.mean_teacher import SemiMeanTeacherTrainer
from semi_nnunet.util.errors import UserError


@pytest.fixture
def shim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "variants" / "semi_nnunet_shim.py"
    path.parent.mkdir()
    monkeypatch.setattr(module, "shim_file", lambda: path)
    return path


def test_unregistering_removes_all_that_registering_wrote(shim: Path) -> None:
    assert not is_registered() and not unregister()
    for _ in range(2):
        assert register() == shim and is_registered()
    assert unregister() and list(shim.parent.iterdir()) == []


def test_the_shim_exports_the_trainers(shim: Path) -> None:
    names: dict[str, object] = {}
    exec(register().read_text(), names)
    assert names["SemiMeanTeacherTrainer"] is SemiMeanTeacherTrainer


def test_an_outdated_shim_is_not_registered(shim: Path) -> None:
    shim.write_text("old", encoding="utf-8")
    assert not is_registered()


def test_a_folder_that_cannot_be_written_names_the_variable(
    shim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise UserError("read-only")

    monkeypatch.setattr(module, "write_text", refuse)
    with pytest.raises(UserError, match="nnUNet_extTrainer"):
        register()


def test_nnunet_finds_the_class_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_extTrainer", str(TRAINERS_FOLDER))
    trainer = recursive_find_trainer_class_by_name("SemiMeanTeacherTrainer")
    assert trainer is SemiMeanTeacherTrainer


def test_one_trainer_brings_the_settings_of_all() -> None:
    """A training compares plans['semi'] with the settings of every trainer."""
    code = "from semi_nnunet.discovery.trainers import semi_nnunet_trainers as ours\n"
    code += "trainer = ours.SemiMixMatchTrainer\n"
    code += "assert {*ours.TRAINERS} <= {*trainer.methods}, {*ours.TRAINERS} - {*trainer.methods}"
    subprocess.run([sys.executable, "-c", code], check=True)
