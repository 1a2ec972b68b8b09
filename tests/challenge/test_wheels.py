"""Wheels are pinned, fit the image, and this package's own is made of the files in use."""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.metadata
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import semi_nnunet
from semi_nnunet.challenge import wheels
from semi_nnunet.challenge.wheels import fetch, own_wheel, platform, write_requirements
from semi_nnunet.util.errors import UserError
from tests.challenge.conftest import write_wheels


@pytest.fixture
def folder(tmp_path) -> Path:
    """Wheels that hold nothing."""
    versions = {"my-package": "1.2", "pip": importlib.metadata.version("pip")}
    return write_wheels(versions, tmp_path / "mine", {})


def test_wheels_of_a_folder_are_taken_without_network_and_pinned(folder, tmp_path):
    write_wheels({"my-package": "1.3"}, folder, {})  # newer, but not what is asked for
    found = fetch({"my-package": "1.2"}, tmp_path / "out", wheels=folder)
    names = [path.name.rpartition("-py3")[0] for path in found]
    assert names == ["my_package-1.2", f"pip-{importlib.metadata.version('pip')}"]
    write_requirements(found, tmp_path / "requirements.txt")
    checksum = hashlib.sha256(found[0].read_bytes()).hexdigest()
    written = (tmp_path / "requirements.txt").read_text()
    assert written == f"my-package==1.2 --hash=sha256:{checksum}\n"


def test_a_wheel_that_is_nowhere_is_told_with_what_to_do(folder, tmp_path):
    with pytest.raises(UserError, match=r"torch==9.9\+cpu[\s\S]*Fix: --extra-index-url") as error:
        fetch({"my-package": "1.2", "torch": "9.9+cpu"}, tmp_path / "out", wheels=folder)
    assert "Traceback" not in str(error.value)
    with pytest.raises(UserError, match="must be a folder, got none"):
        fetch({}, tmp_path / "other", wheels=tmp_path / "absent")


def test_wheels_of_another_machine_and_missing_ones_are_named(tmp_path):
    (tmp_path / "one-1-cp311-cp311-win_amd64.whl").touch()
    with pytest.raises(UserError) as error:
        wheels.require_all({"one": "1", "two": "2"}, tmp_path)
    assert "two: must have a wheel of version 2" in str(error.value)
    assert "Linux on x86_64, got one-1-cp311-cp311-win_amd64.whl" in str(error.value)


def test_wheels_are_asked_for_the_image_and_not_for_this_machine(monkeypatch):
    words = platform()
    assert words[words.index("--python-version") + 1] == "{}.{}".format(*sys.version_info[:2])
    assert {"manylinux_2_28_x86_64", "manylinux2014_x86_64"} <= {*words}
    assert not [word for word in words if "macos" in word or "win" in word]
    assert wheels.is_pure("nnunetv2") and not wheels.is_pure("numpy")


def test_the_own_wheel_has_every_file_and_its_checksum(tmp_path):
    wheel = own_wheel(tmp_path)
    package = Path(semi_nnunet.__file__).parent
    with zipfile.ZipFile(wheel) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    for path in package.rglob("*.py"):
        assert contents[path.relative_to(package.parent).as_posix()] == path.read_bytes()
    assert not [name for name in contents if "__pycache__" in name]
    (record,) = (name for name in contents if name.endswith("/RECORD"))
    rows = {row[0]: row[1:] for row in csv.reader(io.StringIO(contents[record].decode()))}
    assert {*rows} == {*contents}
    for name, content in contents.items():
        if name != record:
            checksum = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode()
            assert rows[name] == [f"sha256={checksum.rstrip('=')}", str(len(content))]


def test_the_own_wheel_is_installed_by_pip_and_imported(tmp_path):
    wheel, target = own_wheel(tmp_path), tmp_path / "target"
    words = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*words, "--target", str(target), str(wheel)], check=True, capture_output=True)
    code = "import semi_nnunet.challenge.entry as e; print(e.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(target)},
    )  # fmt: skip
    assert Path(done.stdout.strip()).is_relative_to(target), done.stderr
