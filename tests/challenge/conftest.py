"""A model to package, and empty wheels."""

from __future__ import annotations

import importlib.metadata
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from semi_nnunet.challenge.packed_model import pack_model
from semi_nnunet.util.files import write_json
from tests.pseudo_labels.conftest import cascade, pool

__all__ = ["cascade", "pool", "root"]


@pytest.fixture
def root(pool, tmp_path) -> Path:
    """What install.sh makes of the model of a submission."""
    folder = tmp_path / "opt" / "submission"
    packed = pack_model(pool.models[0], folder / "model")
    options = {"model": packed.folder.name, "speed": "exact", "step": None, "device": "cpu"}
    write_json(folder / "submission.json", options | {"limit": 60.0})
    return folder


def write_wheels(versions: Mapping[str, str], folder: Path, content: Mapping[str, str]) -> Path:
    """Wheels of these versions with the same files in each; returns their folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, version in versions.items():
        word = name.replace("-", "_")
        info = f"{word}-{version}.dist-info"
        files = {f"{word}_{path}": text for path, text in content.items()}
        files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
        with zipfile.ZipFile(folder / f"{word}-{version}-py3-none-any.whl", "w") as archive:
            for path, text in files.items():
                archive.writestr(path, text)
    return folder


def write_pip(folder: Path) -> None:
    """The wheel of the installed pip, whose files it runs from."""
    pip = importlib.metadata.distribution("pip")
    with zipfile.ZipFile(folder / f"pip-{pip.version}-py3-none-any.whl", "w") as archive:
        for path in pip.files or ():
            if ".." not in path.parts and path.suffix != ".pyc":
                archive.write(str(path.locate()), str(path))
