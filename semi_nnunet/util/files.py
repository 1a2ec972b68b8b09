"""Writing files so that a crash leaves the old content or the new one, never a torn one."""

from __future__ import annotations

import csv
import errno
import glob
import hashlib
import io
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from semi_nnunet.util.errors import DiskError, UserError, disk_error_message
from semi_nnunet.util.machine import is_running

FULL_BYTES = 2**24  # a disk with less left than that is full
INTACT = "The previous file, if any, is intact"
MAKE_AGAIN = "run the command that writes it (again)"


def file_in_the_way(folder: Path) -> Path | None:
    """The file that is where a folder, or one that it is to lie in, would be; None: there is none.

    Args:
        folder: that need not be there yet.
    """
    there = nearest_existing(folder)
    return None if there.is_dir() else there


def nearest_existing(path: Path) -> Path:
    """The path, or the first folder above it that is there."""
    return next(one for one in (path, *path.absolute().parents) if one.exists())


def write_atomically(
    path: str | Path, write: Callable[[Path], object], needed: int | None = None
) -> None:
    """Call ``write`` with a temporary name beside ``path``, flush it, then rename it to ``path``.

    Args:
        path: of the file.
        write: writes it.
        needed: about how many bytes it takes, for the error that the disk is full.

    Raises:
        UserError: ``path`` is a folder, its folder does not exist, or the disk is full or not
            writable; ``path`` is then as it was.
    """
    path = Path(path)
    require_place(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        put_in_place(temporary, path)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
        with suppress(OSError):
            temporary.unlink()
        raise could_not_write(path, error, path.parent, needed) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    with suppress(OSError):  # the file is written; not every file system can flush a folder
        _flush(path.parent)


def could_not_write(
    what: str | Path,
    error: BaseException,
    folder: str | Path,
    needed: int | None = None,
    left: str = INTACT,
) -> DiskError:
    """The error that something could not be written to a folder.

    Args:
        what: the file, or what it is.
        error: of the system.
        folder: on the disk in question.
        needed: about how many bytes it takes.
        left: what is there now.
    """
    if isinstance(error.__context__, OSError):  # torch says less than what it was told
        error = error.__context__
    known = isinstance(error, OSError) and error.strerror  # without the names: one is said anyway
    said = " ".join(str(known or error).splitlines())  # torch and SimpleITK say it in several
    takes = "" if needed is None else f"it takes about {amount(needed)}, and "
    return DiskError(
        f"could not write {what} ({type(error).__name__}: {said}); {takes}"
        f"{amount(free_bytes(folder))} are free there. {left}",
        fix="free some space or make the folder writable, then run the same command again",
    )


def amount(count: int) -> str:
    """A number of bytes for people: "3.25 GiB", "12.0 MiB" or "4 kiB"."""
    if count >= 2**30:
        return f"{count / 2**30:.2f} GiB"
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{-(-count // 2**10)} kiB"


@contextmanager
def writing(what: str | Path, folder: str | Path, left: str = INTACT) -> Iterator[None]:
    """Inside the block, something is written that cannot be written aside.

    Args:
        what: is written, such as a folder.
        folder: on the disk that it goes to.
        left: what is there after an error.

    Raises:
        DiskError: the disk is full or not writable.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:  # SimpleITK and blosc2 raise RuntimeError
        is_full = isinstance(error, RuntimeError) and free_bytes(folder) < FULL_BYTES
        if not is_full and disk_error_message(error) is None:
            raise
        raise could_not_write(what, error, folder, left=left) from error


@contextmanager
def folder_aside(target: Path, left: str) -> Iterator[Path]:
    """Inside the block, fill a new folder that gets the name of ``target`` after it, whole.
    Several processes may do so at once, each in a folder of its own: the first has its way.

    Args:
        target: does not exist, or is empty.
        left: what is there after an error.

    Yields:
        The name of the new folder, which is not made yet; it is removed if the block fails.

    Raises:
        UserError: the disk is full or not writable, or another process has made it meanwhile.
    """
    beginning = f".{target.name}.{socket.gethostname()}."
    for leftover in target.parent.glob(f"{glob.escape(beginning)}*.tmp"):
        if not is_running(leftover.name.removeprefix(beginning).removesuffix(".tmp")):
            shutil.rmtree(leftover, ignore_errors=True)
    aside = target.with_name(f"{beginning}{os.getpid()}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        with writing(target, target.parent, left):
            yield aside
            put_folder(aside, target)
    except (UserError, OSError, RuntimeError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        cause = error.__cause__
        if isinstance(error, DiskError) and isinstance(cause, (OSError, RuntimeError)):
            raise could_not_write(target, cause, target.parent, left=left) from cause
        raise


@contextmanager
def undone_on_failure(paths: Sequence[Path]) -> Iterator[None]:
    """Inside the block, nnU-Net changes these files in place; if it fails, the old ones are back.

    After a kill, :func:`undo` brings them back.
    """
    undo(paths)
    for path in paths:
        copy = partial(shutil.copyfile, path) if path.exists() else Path.touch
        write_atomically(_before(path), copy)  # empty: there was none
    try:
        yield
    except BaseException:
        undo(paths)
        raise
    for path in paths:
        _before(path).unlink()


def undo(paths: Iterable[Path]) -> None:
    """Bring back what :func:`undone_on_failure` set aside in a process that was killed."""
    for path in paths:
        before = _before(path)
        if before.exists():
            before.replace(path)  # takes no space
            if path.stat().st_size == 0:
                path.unlink()


def _before(path: Path) -> Path:
    return path.with_name(f".{path.name}.before")


def free_bytes(folder: str | Path) -> int:
    """How much is left on the disk of a folder that may not exist yet."""
    return shutil.disk_usage(nearest_existing(Path(folder))).free


def require_place(path: Path) -> None:
    """Check a path that a file is to be written to, before the work for it.

    Raises:
        UserError: it is a folder or a device, or its folder does not exist.
    """
    if not path.absolute().parent.is_dir():
        raise UserError(
            f"could not write {path}: {path.parent} is no folder that exists",
            fix="create it, or correct the path",
        )
    if path.is_dir():
        raise UserError(
            f"could not write {path}: a file is to be written, but it is a folder",
            fix=f"give a file in it, such as {path / 'NAME'}",
        )
    if path.exists() and not path.is_file():  # to rename a file to a device would replace that
        raise UserError(f"could not write {path}: it is a device", fix="give a file")


def require_other(path: Path, read: Iterable[Path]) -> None:
    """Check that what is to be written is none of what is read for it.

    Raises:
        UserError: it is.
    """
    if path.exists() and any(one.exists() and path.samefile(one) for one in read):
        raise UserError(
            f"could not write {path}: it is read for what is to be written there, and would be "
            f"lost",
            fix="choose another place with -o",
        )


def put_in_place(finished: Path, path: Path) -> None:
    """Flush a finished file to disk and rename it to ``path``, on the same file system."""
    _flush(finished)
    os.replace(finished, path)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def put_folder(finished: Path, path: Path) -> None:
    """Rename a finished folder to ``path``, where nothing is, or an empty folder.

    Raises:
        UserError: another process has made one there meanwhile.
    """
    try:
        os.replace(finished, path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        raise UserError(
            f"{path} was made by another process meanwhile",
            fix="take that, or remove it and run the same command again",
        ) from error


def require_space(folder: Path, needed_bytes: int = FULL_BYTES) -> None:
    """Check that the disk of ``folder`` is not full.

    Raises:
        UserError: it has less left than that.
    """
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise DiskError(
            f"the disk of {folder} is full: {free / 2**20:.0f} MiB are free",
            fix="free some space, then run the same command again",
        )


def remove_leftovers(folder: str | Path) -> None:
    """Delete the temporary files of killed writers in ``folder``; nobody may be writing there."""
    for path in Path(folder).glob(".*.tmp"):
        if path.is_file():
            path.unlink()


def write_text(path: str | Path, text: str) -> None:
    """Write a text in UTF-8, atomically."""
    content = text.encode()
    write_atomically(path, lambda temporary: temporary.write_bytes(content), len(content))


def write_json(path: str | Path, content: Any) -> None:
    """Write ``content`` as indented JSON, atomically."""
    text = json.dumps(content, indent=4, sort_keys=False)
    write_text(path, text + "\n")


def write_csv(path: str | Path, rows: Iterable[Sequence[Any]]) -> None:
    """Write rows, the first of which names the columns, atomically."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue())


def read_csv(path: str | Path) -> tuple[list[str], list[dict[str, str]]]:
    """Read a file of :func:`write_csv`.

    Returns:
        Its columns, and its rows by column.

    Raises:
        UserError: it cannot be read, or is not whole.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            columns, *rows = list(csv.reader(file)) or [[]]
        if not columns:
            raise ValueError("it is empty")
        for number, row in enumerate(rows, start=2):
            if len(row) != len(columns):
                raise ValueError(f"line {number} has {len(row)} values, not {len(columns)}")
    except (OSError, ValueError, csv.Error) as error:
        what = f"{path} must be a whole table of comma-separated values in UTF-8"
        raise UserError(f"{what} ({error})", fix=f"remove it, and {MAKE_AGAIN}") from error
    return columns, [dict(zip(columns, row, strict=True)) for row in rows]


def write_npz(path: str | Path, **arrays: np.ndarray) -> None:
    """Write compressed arrays, atomically."""

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:  # by its name, numpy would add an ending to it
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    write_atomically(path, write)


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: the file is absent, cannot be read or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(
            f"{path} does not exist", fix=f"correct the path, or {MAKE_AGAIN}"
        ) from error
    except OSError as error:
        fix = "give a file, and permission to read it"
        raise UserError(f"{path} cannot be read: {error}", fix=f"{fix}") from error
    except (ValueError, RecursionError) as error:  # whole numbers of 5000 digits, nested lists
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        fix = f"mend it, or {MAKE_AGAIN}"
        raise UserError(f"{path} is not valid JSON: {reason}", fix=f"{fix}") from error


def optional_json(path: str | Path) -> dict[str, Any]:
    """The object in a JSON file, {} if the file is not there.

    Raises:
        UserError: it cannot be read, or is not an object of JSON.
    """
    if not Path(path).is_file():
        return {}
    content = read_json(path)
    if not isinstance(content, dict):
        found = f"got {json.dumps(content):.80}"
        raise UserError(f"{path} must hold a JSON object, {found}", fix=f"mend it, or {MAKE_AGAIN}")
    return content


def sha256_of_file(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_of_json(content: Mapping[str, Any]) -> str:
    """Hexadecimal SHA-256 of what JSON can hold, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def sha256_of_version(path: str | Path) -> str:
    """The SHA-256 of a large file, computed once in this process for each version of the file.

    A version is known by its path, inode, size and time of change: good for files that are written
    aside and renamed, as checkpoints are.
    """
    about = os.stat(path)
    return _sha256(os.path.abspath(path), about.st_ino, about.st_size, about.st_mtime_ns)


@cache
def _sha256(path: str, number: int, size: int, changed_ns: int) -> str:
    return sha256_of_file(path)
