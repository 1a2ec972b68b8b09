"""Wheels are pinned, fit the image, and this package's own holds the files in use."""

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
from semi_nnunet.challenge.wheels import (
    fetch_wheels,
    list_platform_options,
    write_own_wheel,
    write_requirements,
)
from semi_nnunet.util.errors import UserError
from tests.challenge.conftest import write_wheels


@pytest.fixture
def folder(tmp_path) -> Path:
    """Wheels that hold nothing."""
    versions = {"my-package": "1.2", "pip": importlib.metadata.version("pip")}
    return write_wheels(versions, tmp_path / "mine", {})


def test_wheels_come_from_a_folder_without_network_and_are_pinned(folder, tmp_path):
    write_wheels({"my-package": "1.3"}, folder, {})  # newer, but not what is asked for
    fetched = fetch_wheels({"my-package": "1.2"}, tmp_path / "out", wheels=folder)
    names = [path.name.rpartition("-py3")[0] for path in fetched]
    assert names == ["my_package-1.2", f"pip-{importlib.metadata.version('pip')}"]
    write_requirements(fetched, tmp_path / "requirements.txt")
    checksum = hashlib.sha256(fetched[0].read_bytes()).hexdigest()
    written = (tmp_path / "requirements.txt").read_text()
    assert written == f"my-package==1.2 --hash=sha256:{checksum}\n"


def test_a_missing_wheel_is_reported_with_a_fix(folder, tmp_path):
    with pytest.raises(UserError, match=r"torch==9.9\+cpu") as error:
        fetch_wheels({"my-package": "1.2", "torch": "9.9+cpu"}, tmp_path / "out", wheels=folder)
    assert "Traceback" not in str(error.value) and "--extra-index-url" in error.value.fix
    with pytest.raises(UserError, match="folder, got none"):
        fetch_wheels({}, tmp_path / "other", wheels=tmp_path / "absent")


def test_missing_wheels_and_those_of_other_systems_are_reported(tmp_path):
    (tmp_path / "one-1-cp311-cp311-win_amd64.whl").touch()
    with pytest.raises(UserError) as error:
        wheels.require_wheels({"one": "1", "two": "2"}, tmp_path)
    assert "two: " in str(error.value)
    assert "got one-1-cp311-cp311-win_amd64.whl" in str(error.value)


def test_pip_is_asked_for_wheels_of_the_image(monkeypatch):
    words = list_platform_options()
    assert words[words.index("--python-version") + 1] == "{}.{}".format(*sys.version_info[:2])
    assert {"manylinux_2_28_x86_64", "manylinux2014_x86_64"} <= {*words}
    assert not [word for word in words if "macos" in word or "win" in word]
    assert wheels.is_pure_python("nnunetv2") and not wheels.is_pure_python("numpy")


def test_the_own_wheel_has_every_file_and_its_checksum(tmp_path):
    wheel = write_own_wheel(tmp_path)
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
    wheel, target = write_own_wheel(tmp_path), tmp_path / "target"
    words = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*words, "--target", str(target), str(wheel)], check=True, capture_output=True)
    code = "import semi_nnunet.challenge.entry as e; print(e.__file__)"
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(target)},
    )  # fmt: skip
    assert Path(process.stdout.strip()).is_relative_to(target), process.stderr
