"""Fetch the pinned wheels of a submission by pip, or from a folder without network.

This package's own wheel is made of the imported files, however they were installed.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import semi_nnunet
from semi_nnunet.challenge.needs import normalise_name
from semi_nnunet.util.errors import Problem, UserError, raise_if_any
from semi_nnunet.util.files import sha256_of_file, write_text

OLDEST, NEWEST = 5, 28  # of glibc, 2.N: the wheels that Debian 12 and python:3.N-slim install
LEFT_OUT = ("__pycache__", ".ipynb_checkpoints")
WHEEL = """Wheel-Version: 1.0
Generator: semi_nnunet package
Root-Is-Purelib: true
Tag: py3-none-any
"""
FIXES = (
    "--extra-index-url names an index that has it, --wheels a folder, and --pin NAME==VERSION "
    "takes another version, for example --pin torch==VERSION+cpu with one that pip has just listed"
)


def fetch_wheels(
    pins: Mapping[str, str], out: Path, options: Sequence[str] = (), wheels: Path | None = None
) -> list[Path]:
    """Put a wheel of every package into a folder, for Linux on x86_64 and this version of Python.

    Args:
        pins: name -> version.
        out: new folder for the wheels.
        options: for pip, such as ``("--extra-index-url", URL)``.
        wheels: folder to take them from, without network. None: pip's configured indices.

    Returns:
        The wheels, sorted.

    Raises:
        UserError: pip is missing or does not find a wheel.
    """
    out.mkdir(parents=True)
    versions = {**pins, "pip": find_pip_version()}
    if wheels is not None:
        if not wheels.is_dir():
            raise UserError(f"--wheels {wheels} must be a folder, got none", fix="correct the path")
        options = ("--no-index", "--find-links", str(wheels.absolute()))
    from_source = {name for name in versions if wheels is None and is_pure_python(name)}
    binary = [name for name in versions if name not in from_source]
    torch = [name for name in binary if name == "torch"]  # the one that is missing most often
    for names in (torch, [name for name in binary if name not in torch]):
        if names:
            lines = [f"{name}=={versions[name]}" for name in names]
            run_pip(["download", "-d", str(out), *list_platform_options(), *options, *lines])
    if from_source:  # for some of these pip must build the wheel
        lines = [f"{name}=={versions[name]}" for name in sorted(from_source)]
        run_pip(["wheel", "-w", str(out), *options, *lines])
    require_wheels(versions, out)
    return sorted(out.glob("*.whl"))


def run_pip(words: Sequence[str]) -> None:
    """Run pip quietly, without installing requirements.

    Raises:
        UserError: with pip's message.
    """
    command, *arguments = words
    line = [sys.executable, "-m", "pip", command, "--no-deps", "--disable-pip-version-check", "-q"]
    process = subprocess.run([*line, *arguments], capture_output=True, text=True)
    if process.returncode:
        lines = process.stderr.splitlines()
        errors = [line for line in lines if line.startswith("ERROR")] or lines[-3:]
        raise UserError("pip found no wheel:\n  " + "\n  ".join(errors), fix=FIXES)


def find_pip_version() -> str:
    """Return the version of pip, which is packed, too: images of Debian have none.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.metadata.version("pip")
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(
            "wheels are fetched by pip, which is not installed",
            fix=f"{sys.executable} -m ensurepip",
        ) from error


def is_pure_python(name: str) -> bool:
    """Return whether the installed package has no binaries, so that it fits every machine."""
    try:
        about = importlib.metadata.distribution(name).read_text("WHEEL") or ""
    except importlib.metadata.PackageNotFoundError:  # a version is given; pip knows if there is one
        return False
    return "Root-Is-Purelib: true" in about and "none-any" in about


def list_platform_options() -> list[str]:
    """Return pip's options for wheels that the image can install."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    names = [f"manylinux_2_{minor}_x86_64" for minor in range(NEWEST, OLDEST - 1, -1)]
    names += ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64"]
    words = ["--only-binary", ":all:", "--implementation", "cp", "--python-version", version]
    return [*words, *(word for name in names for word in ("--platform", name))]


def require_wheels(pins: Mapping[str, str], folder: Path) -> None:
    """Check that every package has a wheel for the image.

    Raises:
        UserError: lists missing and unfit wheels.
    """
    files = {normalise_name(path.name.split("-")[0]): path.name for path in folder.glob("*.whl")}
    problems = [
        Problem(name, f"must have a wheel of version {pins[name]}, got none", FIXES)
        for name in sorted(pins)
        if normalise_name(name) not in files
    ]
    for name, file in files.items():
        if not file.endswith(("-any.whl", "_x86_64.whl")) or "macosx" in file:
            message = f"must have a wheel for Linux on x86_64, got {file}"
            problems.append(Problem(name, message, FIXES))
    raise_if_any("these wheels are missing:", problems)


def write_own_wheel(out: Path) -> Path:
    """Write the wheel of this package, made of the imported files.

    Args:
        out: folder.

    Returns:
        The wheel. It has no entry points and no requirements, which are installed separately.
    """
    package, version = Path(semi_nnunet.__file__).parent, semi_nnunet.__version__
    info = f"semi_nnunet-{version}.dist-info"
    files = {
        f"semi_nnunet/{path.relative_to(package).as_posix()}": path.read_bytes()
        for path in sorted(package.rglob("*"))
        if path.is_file() and not {*LEFT_OUT} & {*path.parts}
    }
    about = f"Metadata-Version: 2.1\nName: semi_nnunet\nVersion: {version}\nLicense: Apache-2.0\n"
    files |= {f"{info}/METADATA": about.encode(), f"{info}/WHEEL": WHEEL.encode()}
    rows = [
        f"{name},sha256={compute_record_digest(content)},{len(content)}"
        for name, content in files.items()
    ]
    files[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,", ""]).encode()
    path = out / f"semi_nnunet-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return path


def compute_record_digest(content: bytes) -> str:
    """Return the SHA-256 in the form of a wheel's RECORD.

    >>> compute_record_digest(b"")
    '47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU'
    """
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def write_requirements(wheels: Sequence[Path], path: Path) -> None:
    """Write the versions and checksums of wheels, so that no other file is installed.

    Args:
        wheels: all are listed except pip's, which installs them.
        path: of requirements.txt.
    """
    lines = []
    for wheel in wheels:
        name, version = wheel.name.split("-")[:2]
        if name != "pip":
            lines.append(f"{normalise_name(name)}=={version} --hash=sha256:{sha256_of_file(wheel)}")
    write_text(path, "\n".join([*lines, ""]))
