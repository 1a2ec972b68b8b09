"""Install a model from a zip: checked first, unpacked aside, never over another model.

``nnUNetv2_install_pretrained_model_from_zip`` unpacks any zip over existing files. Here a zip holds
models (DatasetNNN_NAME/TRAINER__PLANS__CONFIGURATION) and nothing outside them, its checkpoints
hold tensors and plain values, and no model replaces another. Other files of nnU-Net's zips (notes
on ensembles, pickles of postprocessing) are left out and listed.
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
from typing import Any

from nnunetv2.paths import nnUNet_results

from semi_nnunet.deploy.descriptions import REQUIRED, find_unknown_networks, read_model_json
from semi_nnunet.raw.layout import PLANS_JSON, require_paths
from semi_nnunet.training import checkpoints
from semi_nnunet.util.errors import (
    Problem,
    UserError,
    collect_errors,
    disk_error_message,
    raise_if_any,
)
from semi_nnunet.util.files import free_bytes, put_folder, sha256_of_file
from semi_nnunet.util.names import find_name_defect

MODEL = re.compile(r"(Dataset\d{3}_[^/\\]+)/([^/\\_][^/\\]*?__[^/\\]+?__[^/\\]+?)/.+")
PICKLES = (".pkl", ".pickle")
MAX_RATIO = 100  # of a file's size and its size in the zip; weights are hardly compressed
DEEPEST, LONGEST = 20, 255  # parts of a path, and bytes of each, as file systems take them
MAX_UNCHECKED = 10 * 2**20  # bytes of a file that may be compressed more: tables and texts
DISTRUST = "do not trust this zip"


@dataclass(frozen=True)
class InstalledModels:
    """The result of an installation.

    Args:
        models: their folders, new or the same as before.
        left_out: files of the zip outside any model, or pickles, which execute code.
    """

    models: tuple[Path, ...]
    left_out: tuple[str, ...]


def install_models(archive: str | Path) -> InstalledModels:
    """Install the models of a zip into nnUNet_results.

    Args:
        archive: written by ``semi_nnunet export`` or ``nnUNetv2_export_model_to_zip``.

    Returns:
        The installed models and the files that were left out.

    Raises:
        UserError: the zip is damaged, holds hostile entries, or a different model is installed
            under the same name.
    """
    require_paths("results")
    results = Path(nnUNet_results.require())
    if not Path(archive).is_file():
        message = "is not a file" if Path(archive).exists() else "does not exist"
        raise UserError(f"{archive} {message}", fix="correct the path")
    try:
        with zipfile.ZipFile(archive) as opened:
            raise_if_any(f"{archive} is not installed:", find_zip_problems(opened))
            require_disk_space(opened, results)
            results.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".install_", dir=results) as aside:
                names = [entry.filename for entry in opened.infolist() if not entry.is_dir()]
                model_files = [name for name in names if is_model_file(name)]
                opened.extractall(aside, model_files)
                models = move_models(Path(aside), results, archive)
                left_out = sorted({*names} - {*model_files})
                return InstalledModels(tuple(models), tuple(left_out))
    except (UserError, MemoryError):
        raise  # not the fault of the file
    except Exception as error:  # a flipped byte can raise almost anything in zipfile
        if disk_error_message(error) is not None:
            raise
        raise UserError(
            f"{archive} is not a complete zip ({error})", fix="copy it again"
        ) from error


def is_model_file(name: str) -> bool:
    """Return whether a file of the zip is installed.

    >>> is_model_file("Dataset042_X/nnUNetTrainer__nnUNetPlans__2d/plans.json")
    True
    >>> is_model_file("Dataset042_X/nnUNetTrainer__nnUNetPlans__2d/postprocessing.pkl")
    False
    """
    return bool(MODEL.fullmatch(name)) and not name.lower().endswith(PICKLES)


def find_zip_problems(archive: zipfile.ZipFile) -> Iterator[Problem]:
    """Yield a problem for every entry that no model's zip has, before anything is unpacked."""
    files: set[str] = set()
    folders: set[str] = set()
    for entry in archive.infolist():
        name = entry.filename
        if name.endswith("/") and entry.file_size == 0:
            name = f"{name}."  # check the path of a folder like that of a file in it
        path = PurePosixPath(name)
        too_long = any(len(os.fsencode(name_part)) > LONGEST for name_part in path.parts)
        if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name.split("/")[0]:
            yield Problem(name, "must lie below the folder of its model", DISTRUST)
        elif len(path.parts) > DEEPEST or too_long:
            message = f"must have at most {DEEPEST} parts of at most {LONGEST} bytes"
            yield Problem(f"{name:.80}", message, DISTRUST)
        elif stat.S_ISLNK(entry.external_attr >> 16):
            yield Problem(name, "must be a file, got a link", DISTRUST)
        elif is_model_file(name) and (defects := find_part_defects(path)):
            yield Problem(f"{name!a:.80}", defects[0], DISTRUST)
        elif entry.flag_bits & 1:
            yield Problem(name, "must not be encrypted", "unpack it and zip it without a password")
        elif str(path) in files:
            yield Problem(name, "must occur once, got it twice", DISTRUST)
        elif entry.file_size > max(MAX_UNCHECKED, MAX_RATIO * entry.compress_size):
            message = f"must not grow more than {MAX_RATIO} times when unpacked, got "
            message += f"{entry.file_size:,} bytes of {entry.compress_size:,}"
            yield Problem(name, message, DISTRUST)
        (folders if entry.filename.endswith("/") else files).add(str(path))
        folders |= {str(parent) for parent in path.parents[:DEEPEST]}
    for name in sorted(files & folders):
        yield Problem(name, "must not be a file and a folder at once", DISTRUST)


def find_part_defects(path: PurePosixPath) -> list[str]:
    """Return what makes the names of a path deceive readers or shells."""
    return [defect for name in path.parts if (defect := find_name_defect(name))]


def require_disk_space(archive: zipfile.ZipFile, results: Path) -> None:
    """Check that the unpacked zip fits on the disk.

    Raises:
        UserError: it does not.
    """
    size, free = sum(entry.file_size for entry in archive.infolist()), free_bytes(results)
    if size > free:
        raise UserError(
            f"the models need {size:,} bytes, {results} has {free:,} free", fix="free space there"
        )


def move_models(aside: Path, results: Path, archive: str | Path) -> list[Path]:
    """Check the unpacked models and move them to ``results``, all or none.

    Raises:
        UserError: one cannot be read, could execute code, or differs from an installed one.
    """
    models = sorted(path for path in aside.glob("Dataset*/*") if path.is_dir())
    problems = [problem for model in models for problem in find_model_problems(model, aside)]
    targets: dict[Path, Path] = {}
    for model in models:
        target = results / model.relative_to(aside)
        if not target.exists():
            targets[model] = target
            continue
        with collect_errors(problems, str(target)):
            if describe_model(model) == describe_model(target):
                continue
            fix = "predict with it, or move it away and install again"
            problems.append(Problem(str(target), "holds another model already", fix))
    if not models:
        problems.append(Problem(str(archive), "holds no model", "export the model again"))
    raise_if_any(f"{archive} is not installed:", problems)
    for model, target in targets.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        put_folder(model, target)
    return [results / model.relative_to(aside) for model in models]


def find_model_problems(model: Path, aside: Path) -> Iterator[Problem]:
    """Yield the problems of an unpacked model."""
    for path in sorted(model.rglob("*")):
        relative = str(path.relative_to(aside))
        try:
            if path.suffix == ".json":
                keys = REQUIRED.get(relative.removeprefix(f"{model.relative_to(aside)}/"))
                content = read_model_json(path, keys)
                if path == model / PLANS_JSON:
                    yield from find_unknown_networks(content, relative)
            elif path.suffix == ".pth":
                checkpoints.read_of_any_trainer(path)
        except UserError as error:
            message = error.what.removeprefix(f"{path} ")
            yield Problem(relative, message, error.fix or "export the model again")
    for name in REQUIRED:
        if not (model / name).is_file():
            yield Problem(f"{model.relative_to(aside)}/{name}", "is missing", "export it again")


def describe_model(model: Path) -> dict[str, Any]:
    """Return all that decides what a model predicts: checkpoints, and plans and labels.

    Raises:
        UserError: plans.json or dataset.json cannot be read.
    """
    checksums = {
        str(path.relative_to(model)): sha256_of_file(path) for path in sorted(model.rglob("*.pth"))
    }
    paths = {name: model / name for name in REQUIRED}
    contents = {
        name: read_model_json(path, REQUIRED[name])
        for name, path in paths.items()
        if path.is_file()
    }
    return {**checksums, **contents}
