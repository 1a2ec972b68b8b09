"""Which installed packages a submission needs: those that a prediction of its model imports.

What trains, plans, draws and measures is left out, so that the image is small. Nothing is guessed:
a process predicts with the model, and its modules are looked up. PyTorch imports some of its needs
late, so that all of them are taken, but for CUDA where there is no GPU.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

from semi_nnunet.util.errors import UserError

OWN = "semi-nnunet"
CUDA = re.compile(r"nvidia-.*|cuda-.*")
COMPILERS = re.compile(r"triton")  # predictions run as they are
TIFF = "imagecodecs"  # tifffile imports it if it is there
TARGET = {  # of the image: markers of requirements are asked for it
    "os_name": "posix", "sys_platform": "linux", "platform_system": "Linux",
    "platform_machine": "x86_64", "platform_python_implementation": "CPython",
}  # fmt: skip
TRACE = """
import json, sys
from pathlib import Path
from semi_nnunet.challenge import entry
entry.check(Path(sys.argv[1]))
files = {name: getattr(module, "__file__", None) for name, module in sys.modules.items()}
Path(sys.argv[2]).write_text(json.dumps({k: v for k, v in files.items() if v}), encoding="utf-8")
"""


def needed(root: Path, cuda: bool, ending: str) -> dict[str, str]:
    """The packages that a prediction needs, as they are installed here.

    Args:
        root: of a submission, see :func:`semi_nnunet.challenge.entry.described`.
        cuda: whether it computes on a GPU.
        ending: of the images' files.

    Returns:
        Name -> version, without this package. Of PyTorch without CUDA the version is VERSION+cpu.

    Raises:
        UserError: the model does not predict here.
    """
    found = distributions_of(imported(root)) | requirements_of("torch")
    names = {name for name in found if not COMPILERS.fullmatch(name) and name != OWN}
    if not ending.startswith(".tif"):
        names.discard(TIFF)
    if not cuda:
        names = {name for name in names if not CUDA.fullmatch(name)}
    versions = {name: importlib.metadata.version(name) for name in sorted(names)}
    if not cuda:
        versions["torch"] = f"{Version(versions['torch']).public}+cpu"
    return versions


def imported(root: Path) -> dict[str, str]:
    """Module -> file of a process that predicts a made-up image with the model of a submission.

    Raises:
        UserError: it fails.
    """
    with tempfile.TemporaryDirectory() as aside:
        file = Path(aside, "modules.json")
        done = subprocess.run(
            [sys.executable, "-c", TRACE, str(root), str(file)],
            capture_output=True, text=True, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        )  # fmt: skip
        if done.returncode:
            reason = (done.stderr.strip() or "no message").splitlines()[-1]
            raise UserError(
                f"the model must predict a made-up image here, got: {reason}",
                fix="try semi_nnunet predict with it",
            )
        return dict(json.loads(file.read_text(encoding="utf-8")))


def distributions_of(modules: dict[str, str]) -> set[str]:
    """The installed packages, by their normalised names, that files of modules are of."""
    of_top = importlib.metadata.packages_distributions()
    names: set[str] = set()
    for module, file in modules.items():
        owners = {normalised(name) for name in of_top.get(module.partition(".")[0], ())}
        for name in owners - names:
            if owns(importlib.metadata.distribution(name), Path(file), len(owners) > 1):
                names.add(name)
    return names


def owns(distribution: Distribution, file: Path, several: bool) -> bool:
    """Whether a file is of a package.

    Args:
        distribution: the package.
        file: of a module whose first name is one of the package's.
        several: whether other packages have that name, too, so that its list must be searched.
    """
    folder = Path(str(distribution.locate_file("")))
    if not file.is_relative_to(folder):  # a module of Python that a package has in its place
        return False
    return not several or any(
        Path(str(distribution.locate_file(one))) == file for one in distribution.files or ()
    )


def requirements_of(name: str) -> set[str]:
    """A package and all that it requires, with theirs, as far as they are installed."""
    names: set[str] = set()
    waiting, seen = [(name, frozenset[str]())], set()
    while waiting:
        job = waiting.pop()
        one, extras = job
        if job in seen:
            continue
        seen.add(job)
        try:
            lines = importlib.metadata.distribution(one).requires or []
        except PackageNotFoundError:  # of CUDA, where PyTorch is one without
            continue
        names.add(one)
        for requirement in map(Requirement, lines):
            if is_asked(requirement, extras):
                waiting.append((normalised(requirement.name), frozenset(requirement.extras)))
    return names


def is_asked(requirement: Requirement, extras: Iterable[str]) -> bool:
    """Whether a requirement holds for the image, with these extras of who requires it."""
    marker = requirement.marker
    return marker is None or any(marker.evaluate({**TARGET, "extra": e}) for e in ("", *extras))


def normalised(name: str) -> str:
    """A package's name as indices write it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def licence_of(name: str) -> str:
    """The licence of an installed package, in the words of its metadata."""
    try:
        about = importlib.metadata.metadata(name)
    except PackageNotFoundError:
        return "?"
    kinds = [
        line.rpartition(" :: ")[2]
        for line in about.get_all("Classifier") or []
        if line.startswith("License ::")
    ]
    said, expression = (  # what is not there is None in Python 3.11, and an error in its backport
        (about.get_all(key) or [""])[0].strip() for key in ("License", "License-Expression")
    )
    short = said if said and "\n" not in said and len(said) < 60 else ""
    return expression or ", ".join(kinds) or short or "see its wheel"
