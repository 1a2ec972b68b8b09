"""Let nnU-Net find our trainers, in every shell and without a change to its package."""

from __future__ import annotations

import importlib.util
import os
import site
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from semi_nnunet.discovery.startup_line import FILE, startup_line
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import write_text

EXTERNAL = "nnUNet_extTrainer"  # by which nnU-Net finds trainers that are not its own
TRAINERS_FOLDER = Path(__file__).parent / "trainers"
TABLE = "semi_nnunet_trainers.py"  # in the trainers' folder of every copy of this package


def trainer_folders() -> str:
    """Return the value of ``nnUNet_extTrainer`` that finds our trainers and the user's own."""
    return os.pathsep.join(map(str, [TRAINERS_FOLDER, *user_folders()]))


def user_folders() -> list[Path]:
    """Return the folders in ``nnUNet_extTrainer`` that are the user's, not ours or another copy."""
    folders = [Path(name) for name in os.environ.get(EXTERNAL, "").split(os.pathsep) if name]
    return [folder for folder in folders if not (folder / TABLE).is_file()]


def find_startup_files() -> list[Path]:
    """Return the files that name our trainers whenever this Python starts.

    pip installs one with this package, except by --target.
    """
    folders = dict.fromkeys([*site.getsitepackages(), site.getusersitepackages()])
    is_used = {site.getusersitepackages(): bool(site.ENABLE_USER_SITE)}
    files = [Path(folder, FILE) for folder in folders if is_used.get(folder, True)]
    return [file for file in files if file.is_file()]


def nnunet_trainers_folder() -> Path:
    """Return the folder of nnU-Net's own trainers.

    Raises:
        UserError: nnU-Net is not installed.
    """
    spec = importlib.util.find_spec("nnunetv2")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("nnunetv2 is not installed in this Python", fix="pip install nnunetv2")
    return Path(spec.submodule_search_locations[0]) / "training" / "nnUNetTrainer"


def find_file_in_nnunet() -> Path | None:
    """Return the file that earlier versions wrote into nnU-Net's package, if it is there."""
    file = nnunet_trainers_folder() / "variants" / "semi_nnunet_shim.py"
    return file if file.is_file() else None


def write_startup_file() -> list[Path]:
    """Write the startup file if pip has not, and remove an earlier file in nnU-Net's package.

    Returns:
        The startup files.

    Raises:
        UserError: a folder is not writable.
    """
    earlier = find_file_in_nnunet()
    if earlier is not None:
        _remove(earlier)
    if not find_startup_files():
        file = Path(sysconfig.get_path("purelib")) / FILE
        try:
            write_text(file, startup_line(ascii(str(TRAINERS_FOLDER))))
        except UserError as error:
            raise UserError(
                f"cannot write into {file.parent}",
                fix=f'in your shell, export {EXTERNAL}="$(semi_nnunet register --print)" instead',
            ) from error
    return find_startup_files()


def unregister() -> Iterator[Path]:
    """Remove everything by which nnU-Net finds our trainers, and yield each removed file.

    Raises:
        UserError: a file cannot be removed.
    """
    for file in filter(None, [find_file_in_nnunet(), *find_startup_files()]):
        _remove(file)
        yield file


def _remove(file: Path) -> None:
    try:
        file.unlink()
    except OSError as error:
        raise UserError(
            f"{file} cannot be removed ({error.strerror})",
            fix="remove it as a user who may write there",
        ) from error
