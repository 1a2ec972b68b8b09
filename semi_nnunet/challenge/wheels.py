"""The pinned wheels of a submission: downloaded by pip, or taken from a folder without network.

This package's own wheel is made of the files that are imported here, however they were installed.
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
from semi_nnunet.challenge.needs import normalised
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


def fetch(
    pins: Mapping[str, str], out: Path, options: Sequence[str] = (), wheels: Path | None = None
) -> list[Path]:
    """Put a wheel of every package into a folder, for Linux on x86_64 and this version of Python.

    Args:
        pins: name -> version.
        out: new folder for the wheels.
        options: for pip, such as ``("--extra-index-url", URL)``.
        wheels: folder to take them from, without network. None: where pip is set to look.

    Returns:
        The wheels, sorted.

    Raises:
        UserError: pip is missing or does not find one.
    """
    out.mkdir(parents=True)
    chosen = {**pins, "pip": installed_pip()}
    if wheels is not None:
        if not wheels.is_dir():
            raise UserError(f"--wheels {wheels} must be a folder, got none", fix="correct the path")
        options = ("--no-index", "--find-links", str(wheels.absolute()))
    from_source = set[str]() if wheels is not None else {name for name in chosen if is_pure(name)}
    others = [name for name in chosen if name not in from_source]
    torch = [name for name in others if name == "torch"]  # the one that is missing most often
    for names in (torch, [name for name in others if name not in torch]):
        if names:
            lines = [f"{name}=={chosen[name]}" for name in names]
            pip(["download", "-d", str(out), *platform(), *options, *lines])
    if from_source:  # some of these have no wheel but the one that pip makes
        lines = [f"{name}=={chosen[name]}" for name in sorted(from_source)]
        pip(["wheel", "-w", str(out), *options, *lines])
    require_all(chosen, out)
    return sorted(out.glob("*.whl"))


def pip(words: Sequence[str]) -> None:
    """Run pip, quietly and without what the packages require.

    Raises:
        UserError: with what it says.
    """
    command, *arguments = words
    line = [sys.executable, "-m", "pip", command, "--no-deps", "--disable-pip-version-check", "-q"]
    done = subprocess.run([*line, *arguments], capture_output=True, text=True)
    if done.returncode:
        said = [one for one in done.stderr.splitlines() if one.startswith("ERROR")]
        reason = "\n  ".join(said or done.stderr.splitlines()[-3:])
        raise UserError(f"pip found no wheel:\n  {reason}\n", fix=f"{FIXES}")


def installed_pip() -> str:
    """The version of pip, which is packed, too: images of Debian have none.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.metadata.version("pip")
    except importlib.metadata.PackageNotFoundError as error:
        fix = f"{sys.executable} -m ensurepip"
        raise UserError(
            "wheels are fetched by pip, which is not installed", fix=f"{fix}"
        ) from error


def is_pure(name: str) -> bool:
    """Whether the installed package is Python alone, so that it fits every machine."""
    about = importlib.metadata.distribution(name).read_text("WHEEL") or ""
    return "Root-Is-Purelib: true" in about and "none-any" in about


def platform() -> list[str]:
    """pip's options for wheels that the image can install."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    names = [f"manylinux_2_{minor}_x86_64" for minor in range(NEWEST, OLDEST - 1, -1)]
    names += ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64"]
    words = ["--only-binary", ":all:", "--implementation", "cp", "--python-version", version]
    return [*words, *(word for name in names for word in ("--platform", name))]


def require_all(pins: Mapping[str, str], folder: Path) -> None:
    """Check that every package has its wheel, that fits.

    Raises:
        UserError: naming those that are missing.
    """
    found = {normalised(path.name.split("-")[0]): path.name for path in folder.glob("*.whl")}
    wrong = [
        Problem(name, f"must have a wheel of version {pins[name]}, got none", FIXES)
        for name in sorted(pins)
        if normalised(name) not in found
    ]
    for name, file in found.items():
        if file.endswith(("-macosx.whl", "win_amd64.whl")) or "linux_aarch64" in file:
            what = f"must have a wheel for Linux on x86_64, got {file}"
            wrong.append(Problem(name, what, FIXES))
    raise_if_any("these wheels are missing:", wrong)


def own_wheel(out: Path) -> Path:
    """Write the wheel of this package, of the files that are imported now.

    Args:
        out: folder.

    Returns:
        The wheel. It has no entry points and no requirements: it is installed beside what it needs.
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
    rows = [f"{name},sha256={digest(content)},{len(content)}" for name, content in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,", ""]).encode()
    path = out / f"semi_nnunet-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return path


def digest(content: bytes) -> str:
    """The checksum as a wheel's list of files writes it."""
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def write_requirements(wheels: Sequence[Path], path: Path) -> None:
    """Write the versions of wheels, each with its checksum, so that no other file is installed.

    Args:
        wheels: all but pip's, which installs them, are listed.
        path: of requirements.txt.
    """
    lines = []
    for wheel in wheels:
        name, version = wheel.name.split("-")[:2]
        if name != "pip":
            lines.append(f"{normalised(name)}=={version} --hash=sha256:{sha256_of_file(wheel)}")
    write_text(path, "\n".join([*lines, ""]))
