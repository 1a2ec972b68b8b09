"""Install a model that came as a zip: looked at first, unpacked aside, never over another model.

``nnUNetv2_install_pretrained_model_from_zip`` unpacks whatever a zip holds over whatever is there.
Here a zip holds models (DatasetNNN_NAME/TRAINER__PLANS__CONFIGURATION) and nothing outside them,
its checkpoints hold tensors and plain values, and a model takes the place of no other. What else
nnU-Net's zips may hold (notes on ensembles, pickles of postprocessing) is left out and named.
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from nnunetv2.paths import nnUNet_results

from semi_nnunet.data.layout import require_paths
from semi_nnunet.deploy.descriptions import REQUIRED, network_problems, require_json
from semi_nnunet.training import checkpoints
from semi_nnunet.util.errors import Problem, UserError, disk_error_message, raise_if_any
from semi_nnunet.util.files import free_bytes, put_folder, sha256_of_file

MODEL = re.compile(r"(Dataset\d{3}_[^/\\]+)/([^/\\_][^/\\]*?__[^/\\]+?__[^/\\]+?)/.+")
PICKLES = (".pkl", ".pickle")
MAX_RATIO = 100  # of a file's size and its size in the zip; weights are hardly compressed
DEEPEST, LONGEST = 20, 255  # parts of a path, and bytes of each, as file systems take them
MAX_UNCHECKED = 10 * 2**20  # bytes of a file that may be compressed more: tables and texts


@dataclass(frozen=True)
class Installed:
    """What was installed.

    Args:
        models: their folders, new or the same as before.
        left_out: files of the zip that are no part of a model, or pickles, which execute code.
    """

    models: tuple[Path, ...]
    left_out: tuple[str, ...]


def install(archive: str | Path) -> Installed:
    """Install the models of a zip into nnUNet_results.

    Args:
        archive: written by ``semi_nnunet export`` or ``nnUNetv2_export_model_to_zip``.

    Returns:
        The models that are there now, and what was left out.

    Raises:
        UserError: the zip is damaged, holds what no model holds, or a different model is there.
    """
    require_paths("results")
    results = Path(nnUNet_results.require())
    if not Path(archive).is_file():
        what = "is no file" if Path(archive).exists() else "does not exist"
        raise UserError(f"{archive} {what}", fix="correct the path")
    try:
        with zipfile.ZipFile(archive) as opened:
            problems = list(entry_problems(opened))
            raise_if_any(f"{archive} is not installed:", problems)
            require_room(opened, results)
            results.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".install_", dir=results) as aside:
                names = [entry.filename for entry in opened.infolist() if not entry.is_dir()]
                wanted = [name for name in names if is_of_model(name)]
                opened.extractall(aside, wanted)
                models = put_models(Path(aside), results, archive)
                return Installed(tuple(models), tuple(sorted({*names} - {*wanted})))
    except (UserError, MemoryError):
        raise  # the file is not to blame
    except Exception as error:  # a flipped byte can raise almost anything in zipfile
        if disk_error_message(error) is not None:
            raise
        raise UserError(f"{archive} is no whole zip ({error})", fix="copy it again") from error


def is_of_model(name: str) -> bool:
    """Whether a file of the zip is installed."""
    return bool(MODEL.fullmatch(name)) and not name.lower().endswith(PICKLES)


def entry_problems(archive: zipfile.ZipFile) -> Iterator[Problem]:
    """What a zip holds that no model's zip does, before anything is unpacked."""
    seen: set[str] = set()
    folders: set[str] = set()
    for entry in archive.infolist():
        name = entry.filename
        if name.endswith("/") and entry.file_size == 0:
            name = f"{name}."  # a folder: its path is checked as that of a file in it
        path = PurePosixPath(name)
        too_long = any(len(os.fsencode(part)) > LONGEST for part in path.parts)
        if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name.split("/")[0]:
            yield Problem(name, "must lie below the folder of its model", "do not trust this zip")
        elif len(path.parts) > DEEPEST or too_long:
            what = f"must have at most {DEEPEST} parts of at most {LONGEST} bytes"
            yield Problem(f"{name:.80}", what, "do not trust this zip")
        elif stat.S_ISLNK(entry.external_attr >> 16):
            yield Problem(name, "must be a file, got a link", "do not trust this zip")
        elif entry.flag_bits & 1:
            yield Problem(name, "must not be encrypted", "unpack it and zip it without a password")
        elif str(path) in seen:
            yield Problem(name, "must be there once, got it twice", "do not trust this zip")
        elif entry.file_size > max(MAX_UNCHECKED, MAX_RATIO * entry.compress_size):
            what = f"must not grow more than {MAX_RATIO} times when unpacked, got "
            what += f"{entry.file_size:,} bytes of {entry.compress_size:,}"
            yield Problem(name, what, "do not trust this zip")
        (folders if entry.filename.endswith("/") else seen).add(str(path))
        folders |= {str(above) for above in path.parents[:DEEPEST]}
    for name in sorted(seen & folders):
        yield Problem(name, "must not be a file and a folder at once", "do not trust this zip")


def require_room(archive: zipfile.ZipFile, results: Path) -> None:
    """Check that the disk holds what the zip unpacks to.

    Raises:
        UserError: it does not.
    """
    needed = sum(entry.file_size for entry in archive.infolist())
    free = free_bytes(results)
    if needed > free:
        raise UserError(
            f"the models need {needed:,} bytes, {results} has {free:,} free", fix="free space there"
        )


def put_models(aside: Path, results: Path, archive: str | Path) -> list[Path]:
    """Check the unpacked models and rename them into place, all of them or none.

    Raises:
        UserError: one cannot be read, could execute code, or is another than the one in place.
    """
    found = sorted(path for path in aside.glob("Dataset*/*") if path.is_dir())
    problems = [problem for model in found for problem in model_problems(model, aside)]
    new: dict[Path, Path] = {}
    for model in found:
        target = results / model.relative_to(aside)
        if not target.exists():
            new[model] = target
        elif weights_of(model) != weights_of(target):
            fix = "predict with it, or move it away and install again"
            problems.append(Problem(str(target), "holds another model already", fix))
    if not found:
        problems.append(Problem(str(archive), "holds no model", "export the model again"))
    raise_if_any(f"{archive} is not installed:", problems)
    for model, target in new.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        put_folder(model, target)
    return [results / model.relative_to(aside) for model in found]


def model_problems(model: Path, aside: Path) -> Iterator[Problem]:
    """What is wrong with an unpacked model."""
    for path in sorted(model.rglob("*")):
        where = str(path.relative_to(aside))
        try:
            if path.suffix == ".json":
                keys = REQUIRED.get(where.removeprefix(f"{model.relative_to(aside)}/"))
                content = require_json(path, keys)
                if path == model / "plans.json":
                    yield from network_problems(content, where)
            elif path.suffix == ".pth":
                checkpoints.read_of_any_trainer(path)
        except UserError as error:
            what = error.what.removeprefix(f"{path} ")
            yield Problem(where, what, error.fix or "export the model again")
    for name in REQUIRED:
        if not (model / name).is_file():
            yield Problem(f"{model.relative_to(aside)}/{name}", "is missing", "export it again")


def weights_of(model: Path) -> dict[str, str]:
    """Path of a checkpoint in its model -> SHA-256."""
    return {
        str(path.relative_to(model)): sha256_of_file(path) for path in sorted(model.rglob("*.pth"))
    }
