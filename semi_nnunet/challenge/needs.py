"""Find the installed packages that the prediction of a submission imports.

Packages for training, planning, drawing and measuring are left out, so that the image is small.
Nothing is guessed: a process predicts with the model, and its modules are looked up. PyTorch
imports some of its requirements late, so all of them are included, except CUDA without a GPU.
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
COMPILERS = re.compile(r"triton")  # predictions are not compiled
TIFF = "imagecodecs"  # tifffile imports it if it is installed
TARGET = {  # markers of requirements are evaluated for the image
    "os_name": "posix", "sys_platform": "linux", "platform_system": "Linux",
    "platform_machine": "x86_64", "platform_python_implementation": "CPython",
}  # fmt: skip
TRACE = """
import json, sys
from pathlib import Path
from semi_nnunet.challenge import entry
entry.predict_test_image(Path(sys.argv[1]))
files = {name: getattr(module, "__file__", None) for name, module in sys.modules.items()}
Path(sys.argv[2]).write_text(json.dumps({k: v for k, v in files.items() if v}), encoding="utf-8")
"""


def find_needed_packages(root: Path, cuda: bool, ending: str) -> dict[str, str]:
    """Return the packages that a prediction needs, in the installed versions.

    Args:
        root: of a submission, see :func:`semi_nnunet.challenge.entry.read_submission`.
        cuda: compute on a GPU.
        ending: of the images' files.

    Returns:
        Name -> version, without this package. The version of PyTorch without CUDA is VERSION+cpu.

    Raises:
        UserError: the model does not predict here.
    """
    packages = find_distributions(trace_imports(root)) | collect_requirements("torch")
    names = {name for name in packages if not COMPILERS.fullmatch(name) and name != OWN}
    if not ending.startswith(".tif"):
        names.discard(TIFF)
    if not cuda:
        names = {name for name in names if not CUDA.fullmatch(name)}
    versions = {name: importlib.metadata.version(name) for name in sorted(names)}
    if not cuda:
        versions["torch"] = f"{Version(versions['torch']).public}+cpu"
    return versions


def trace_imports(root: Path) -> dict[str, str]:
    """Return module -> file of a process that predicts a made-up image with a submission's model.

    Raises:
        UserError: the prediction fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "modules.json")
        process = subprocess.run(
            [sys.executable, "-c", TRACE, str(root), str(file)],
            capture_output=True, text=True, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        )  # fmt: skip
        if process.returncode:
            reason = (process.stderr.strip() or "no message").splitlines()[-1]
            raise UserError(
                f"the model must predict a made-up image here, got: {reason}",
                fix="try semi_nnunet predict with it",
            )
        return dict(json.loads(file.read_text(encoding="utf-8")))


def find_distributions(modules: dict[str, str]) -> set[str]:
    """Return the normalised names of the installed packages that the modules belong to.

    Args:
        modules: module -> file.
    """
    packages_of_module = importlib.metadata.packages_distributions()
    names: set[str] = set()
    for module, file in modules.items():
        top_level = module.partition(".")[0]
        owners = {normalise_name(name) for name in packages_of_module.get(top_level, ())}
        for name in owners - names:
            if owns_file(importlib.metadata.distribution(name), Path(file), len(owners) > 1):
                names.add(name)
    return names


def owns_file(distribution: Distribution, file: Path, is_shared: bool) -> bool:
    """Return whether a file belongs to a package.

    Args:
        distribution: the package.
        file: of a module whose top-level name is the package's.
        is_shared: other packages have that name, too, so that the list of files must be searched.
    """
    folder = Path(str(distribution.locate_file("")))
    if not file.is_relative_to(folder):  # a module of Python that a package replaces
        return False
    return not is_shared or any(
        Path(str(distribution.locate_file(path))) == file for path in distribution.files or ()
    )


def collect_requirements(name: str) -> set[str]:
    """Return a package and all its direct and indirect requirements that are installed."""
    names: set[str] = set()
    waiting, visited = [(name, frozenset[str]())], set()
    while waiting:
        package = waiting.pop()
        package_name, extras = package
        if package in visited:
            continue
        visited.add(package)
        try:
            lines = importlib.metadata.distribution(package_name).requires or []
        except PackageNotFoundError:  # of CUDA, if PyTorch was installed without
            continue
        names.add(package_name)
        for requirement in map(Requirement, lines):
            if applies_to_image(requirement, extras):
                waiting.append((normalise_name(requirement.name), frozenset(requirement.extras)))
    return names


def applies_to_image(requirement: Requirement, extras: Iterable[str]) -> bool:
    """Return whether a requirement with these extras applies to the image.

    >>> applies_to_image(Requirement("colorama; sys_platform == 'win32'"), extras=())
    False
    """
    marker = requirement.marker
    return marker is None or any(marker.evaluate({**TARGET, "extra": e}) for e in ("", *extras))


def normalise_name(name: str) -> str:
    """Return a package's name as indices write it.

    >>> normalise_name("Some_Package.Name")
    'some-package-name'
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def read_licence(name: str) -> str:
    """Return the licence of an installed package, in the words of its metadata."""
    try:
        metadata = importlib.metadata.metadata(name)
    except PackageNotFoundError:
        return "?"
    classifiers = [
        line.rpartition(" :: ")[2]
        for line in metadata.get_all("Classifier") or []
        if line.startswith("License ::")
    ]
    licence, expression = (  # a missing key is None in Python 3.11, and an error in its backport
        (metadata.get_all(key) or [""])[0].strip() for key in ("License", "License-Expression")
    )
    short = licence if licence and "\n" not in licence and len(licence) < 60 else ""
    return expression or ", ".join(classifiers) or short or "see its wheel"
