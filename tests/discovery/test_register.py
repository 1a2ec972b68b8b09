"""nnU-Net finds our trainers in every shell, and its package stays as it is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

from semi_nnunet.discovery import register as module
from semi_nnunet.discovery.register import (
    EXTERNAL,
    TRAINERS_FOLDER,
    find_startup_files,
    trainer_folders,
    unregister,
    user_folders,
    write_startup_file,
)
from semi_nnunet.discovery.startup_line import FILE, IN_SITE_PACKAGES, startup_line
from semi_nnunet.methods.mean_teacher import SemiMeanTeacherTrainer
from semi_nnunet.util.errors import UserError


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty site-packages of this Python, with an nnU-Net next to it."""
    folder = tmp_path / "site-packages"
    (folder / "nnunetv2" / "variants").mkdir(parents=True)
    monkeypatch.setattr(module.site, "getsitepackages", lambda: [str(folder)])
    monkeypatch.setattr(module.site, "getusersitepackages", lambda: str(tmp_path / "user"))
    monkeypatch.setattr(module.sysconfig, "get_path", lambda _: str(folder))
    monkeypatch.setattr(module, "nnunet_trainers_folder", lambda: folder / "nnunetv2")
    return folder


def start_python(packages: Path, **variables: str) -> str:
    """Return nnUNet_extTrainer in a Python that starts with these site-packages."""
    code = "import os, site, sys; site.addsitedir(sys.argv[1]); print(os.environ[sys.argv[2]])"
    words = [sys.executable, "-S", "-c", code, str(packages), EXTERNAL]
    kept = {name: value for name, value in os.environ.items() if name != EXTERNAL}
    done = subprocess.run(words, env={**kept, **variables}, capture_output=True, text=True)
    assert not done.stderr
    return done.stdout.rstrip("\n")


def test_every_start_of_python_names_our_trainers_and_keeps_the_users(packages: Path) -> None:
    assert write_startup_file() == write_startup_file() == [packages / FILE]
    ours, users = str(TRAINERS_FOLDER), f"/mine{os.pathsep}/other folder"
    both = os.pathsep.join([ours, users])
    assert start_python(packages) == start_python(packages, **{EXTERNAL: ""}) == ours
    assert start_python(packages, **{EXTERNAL: users}) == both
    for already in (both, f"{users}{os.pathsep}{ours}"):  # a child process inherits it
        assert start_python(packages, **{EXTERNAL: already}) == already


def test_the_file_of_the_wheel_names_the_package_next_to_it(packages: Path) -> None:
    (packages / FILE).write_text(startup_line(IN_SITE_PACKAGES), encoding="ascii")
    assert start_python(packages) == str(packages / "semi_nnunet" / "discovery" / "trainers")


def test_a_folder_with_any_letters_is_found(packages: Path) -> None:
    folder = '/home/müller\'s "π" \\ folder'
    (packages / FILE).write_text(startup_line(ascii(folder)), encoding="ascii")
    assert start_python(packages, PYTHONUTF8="1") == folder


def test_undo_removes_all_that_any_version_wrote(packages: Path) -> None:
    assert not list(unregister())
    earlier = packages / "nnunetv2" / "variants" / "semi_nnunet_shim.py"
    earlier.write_text("# of 0.2.0", encoding="utf-8")
    write_startup_file()
    assert not earlier.exists() and (packages / FILE).is_file()
    earlier.write_text("# of 0.2.0", encoding="utf-8")
    assert [*unregister()] == [earlier, packages / FILE]
    assert not list(packages.rglob("*semi_nnunet*"))


def test_a_file_that_python_does_not_read_does_not_count(
    packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "user").mkdir()
    (tmp_path / "user" / FILE).touch()
    monkeypatch.setattr(module.site, "ENABLE_USER_SITE", True)
    assert find_startup_files() == [tmp_path / "user" / FILE]
    monkeypatch.setattr(module.site, "ENABLE_USER_SITE", False)
    assert find_startup_files() == []


def test_a_folder_that_cannot_be_written_names_the_variable(
    packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise UserError("read-only")

    monkeypatch.setattr(module, "write_text", refuse)
    with pytest.raises(UserError, match=EXTERNAL):
        write_startup_file()


def test_another_copy_of_this_package_is_no_folder_of_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(TRAINERS_FOLDER, tmp_path / "copy")
    monkeypatch.setenv(EXTERNAL, os.pathsep.join([str(copy), str(tmp_path), ""]))
    assert user_folders() == [tmp_path]
    assert trainer_folders() == os.pathsep.join([str(TRAINERS_FOLDER), str(tmp_path)])


def test_nnunet_finds_the_class_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EXTERNAL, str(TRAINERS_FOLDER))
    trainer = recursive_find_trainer_class_by_name("SemiMeanTeacherTrainer")
    assert trainer is SemiMeanTeacherTrainer


def test_one_trainer_brings_the_settings_of_all() -> None:
    """A training compares plans['semi'] with the settings of every trainer."""
    code = "from semi_nnunet.discovery.trainers import semi_nnunet_trainers as ours\n"
    code += "trainer = ours.SemiMixMatchTrainer\n"
    code += "assert {*ours.TRAINERS} <= {*trainer.methods}, {*ours.TRAINERS} - {*trainer.methods}"
    subprocess.run([sys.executable, "-c", code], check=True)
