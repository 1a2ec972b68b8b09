"""Let the installed nnU-Net find our trainers."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import write_text

TRAINERS_FOLDER = Path(__file__).parent / "trainers"

SHIM = '''"""Written by `semi_nnunet register`; `semi_nnunet register --undo` removes it."""

import importlib.util

if importlib.util.find_spec("semi_nnunet") is not None:  # uninstalled: nnU-Net goes on without us
    from semi_nnunet.discovery.trainers.semi_nnunet_trainers import *  # noqa: F403
'''


def trainer_folders() -> str:
    """Return the value of ``nnUNet_extTrainer`` that finds our trainers and the user's own."""
    ours, current = str(TRAINERS_FOLDER), os.environ.get("nnUNet_extTrainer", "")
    return os.pathsep.join([ours, *(p for p in current.split(os.pathsep) if p not in ("", ours))])


def shim_file() -> Path:
    """Return the path of the file next to nnU-Net's own trainer variants.

    Raises:
        UserError: nnU-Net is not installed.
    """
    spec = importlib.util.find_spec("nnunetv2")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("nnunetv2 is not installed in this Python", fix="pip install nnunetv2")
    package = Path(spec.submodule_search_locations[0])
    return package / "training" / "nnUNetTrainer" / "variants" / "semi_nnunet_shim.py"


def is_registered() -> bool:
    """Return whether the file exists and belongs to this version."""
    return shim_file().is_file() and shim_file().read_text(encoding="utf-8") == SHIM


def register() -> Path:
    """Write the file, and return its path.

    Raises:
        UserError: nnU-Net's folder is not writable.
    """
    path = shim_file()
    try:
        write_text(path, SHIM)
    except UserError as error:
        raise UserError(
            f"cannot write into the installed nnU-Net ({path.parent})",
            fix='in your shell, export nnUNet_extTrainer="$(semi_nnunet register --print)" instead',
        ) from error
    return path


def unregister() -> bool:
    """Remove the file; return False if it did not exist."""
    existed = shim_file().is_file()
    shim_file().unlink(missing_ok=True)
    return existed
