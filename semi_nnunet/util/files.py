"""Write files so that a crash leaves the old content or the new one, never half of it."""

from __future__ import annotations

import csv
import errno
import glob
import hashlib
import io
import json
import logging
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from semi_nnunet.util.errors import DiskError, UserError, disk_error_message
from semi_nnunet.util.machine import is_process_running

logger = logging.getLogger(__name__)
FULL_BYTES = 2**24  # a disk with less free space is full
INTACT = "The previous file, if any, is intact"
FORMULA = re.compile(r"'*[=+\-@\t\r]")  # the beginning of a cell that spreadsheets compute
MAKE_AGAIN = "run the command that writes it (again)"


def file_in_the_way(folder: Path) -> Path | None:
    """Return the existing file that blocks creating ``folder`` or one of its parents, or None."""
    existing = find_nearest_existing(folder)
    return None if existing.is_dir() else existing


def is_filled(path: Path) -> bool:
    """Return whether a file exists and has content; a crash of the machine may leave 0 bytes."""
    return path.is_file() and path.stat().st_size > 0


def find_nearest_existing(path: Path) -> Path:
    """Return the path, or the first folder above it that exists."""
    return next(candidate for candidate in (path, *path.absolute().parents) if candidate.exists())


def write_atomically(
    path: str | Path, write: Callable[[Path], object], needed: int | None = None
) -> None:
    """Write a file under a temporary name, flush it, then rename it to ``path``.

    Args:
        path: of the file.
        write: called with the temporary path.
        needed: about how many bytes the file takes, for the error message of a full disk.

    Raises:
        UserError: ``path`` is a folder, its folder does not exist, or the disk is full or not
            writable; ``path`` is then unchanged.
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
    state: str = INTACT,
) -> DiskError:
    """Return the error that something could not be written to a folder.

    Args:
        what: the file, or its description.
        error: of the system.
        folder: on the disk in question.
        needed: about how many bytes it takes.
        state: the state of the disk now, as a sentence.
    """
    if isinstance(error.__context__, OSError):  # more precise than torch's error
        error = error.__context__
    reason = isinstance(error, OSError) and error.strerror  # the file is named anyway
    line = " ".join(str(reason or error).splitlines())  # torch and SimpleITK write several
    takes = "" if needed is None else f"it takes about {amount(needed)}, and "
    return DiskError(
        f"could not write {what} ({type(error).__name__}: {line}); {takes}"
        f"{amount(free_bytes(folder))} are free there. {state}",
        fix="free some space or make the folder writable, then run the same command again",
    )


def amount(count: int) -> str:
    """Format a number of bytes for people.

    >>> amount(3489660928), amount(12582912), amount(4000)
    ('3.25 GiB', '12.0 MiB', '4 kiB')
    """
    if count >= 2**30:
        return f"{count / 2**30:.2f} GiB"
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{-(-count // 2**10)} kiB"


@contextmanager
def writing(what: str | Path, folder: str | Path, state: str = INTACT) -> Iterator[None]:
    """Raise errors of the disk inside the block as :class:`DiskError`.

    For output that cannot be written under a temporary name.

    Args:
        what: the output, such as a folder.
        folder: on its disk.
        state: the state of the disk after an error, as a sentence.

    Raises:
        DiskError: the disk is full or not writable.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:  # SimpleITK and blosc2 raise RuntimeError
        is_full = isinstance(error, RuntimeError) and free_bytes(folder) < FULL_BYTES
        if not is_full and disk_error_message(error) is None:
            raise
        raise could_not_write(what, error, folder, state=state) from error


@contextmanager
def folder_aside(target: Path, state: str) -> Iterator[Path]:
    """Fill a new folder inside the block, and rename it to ``target`` when it is complete.

    If several processes do so at once, each fills its own folder, and the first one wins.

    Args:
        target: does not exist, or is empty.
        state: the state of the disk after an error, as a sentence.

    Yields:
        The temporary path, which does not exist yet; it is removed if the block fails.

    Raises:
        UserError: the disk is full or not writable, or another process made the folder meanwhile.
    """
    beginning = f".{target.name}.{socket.gethostname()}."
    for leftover in target.parent.glob(f"{glob.escape(beginning)}*.tmp"):
        if not is_process_running(leftover.name.removeprefix(beginning).removesuffix(".tmp")):
            shutil.rmtree(leftover, ignore_errors=True)
    temporary = target.with_name(f"{beginning}{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with writing(target, target.parent, state):
            yield temporary
            put_folder(temporary, target)
    except (UserError, OSError, RuntimeError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        cause = error.__cause__
        if isinstance(error, DiskError) and isinstance(cause, (OSError, RuntimeError)):
            raise could_not_write(target, cause, target.parent, state=state) from cause
        raise


@contextmanager
def undone_on_failure(paths: Sequence[Path]) -> Iterator[None]:
    """Restore files that nnU-Net changes in place inside the block, if the block fails.

    After a kill, :func:`undo` restores them.
    """
    undo(paths)
    for path in paths:
        copy = partial(shutil.copyfile, path) if path.exists() else Path.touch
        write_atomically(_backup_of(path), copy)  # empty if there was no file
    try:
        yield
    except BaseException:
        _restore(paths)
        raise
    for path in paths:
        _backup_of(path).unlink()


def undo(paths: Iterable[Path]) -> None:
    """Restore the backups that :func:`undone_on_failure` made in a process that was killed.

    Name the files that differ from their backup: another program may have written them after the
    kill.
    """
    for path in _restore(paths):
        logger.warning(
            f"{path} is again as it was before a command that was killed. If another program wrote "
            f"it after that, run the program again"
        )


def _restore(paths: Iterable[Path]) -> list[Path]:
    """Put the backups in place, and return the files that differed from them."""
    changed = []
    for path in paths:
        backup = _backup_of(path)
        if backup.exists():
            earlier = backup.read_bytes()
            if path.exists() and path.read_bytes() != earlier:
                changed.append(path)
            backup.replace(path)  # takes no space
            if not earlier:
                path.unlink()
    return changed


def _backup_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.before")


def free_bytes(folder: str | Path) -> int:
    """Return the free space on the disk of a folder, which may not exist yet."""
    return shutil.disk_usage(find_nearest_existing(Path(folder))).free


def require_place(path: Path) -> None:
    """Raise a :class:`UserError` if a file cannot be written to ``path``, before the work for it.

    The path is a folder or a device, or its folder does not exist.
    """
    if not path.absolute().parent.is_dir():
        raise UserError(
            f"could not write {path}: the folder {path.parent} does not exist",
            fix="create it, or correct the path",
        )
    if path.is_dir():
        raise UserError(
            f"could not write {path}: it is a folder, not a file",
            fix=f"give a file in it, such as {path / 'NAME'}",
        )
    if path.exists() and not path.is_file():  # renaming a file to a device would replace it
        raise UserError(f"could not write {path}: it is a device", fix="give a file")


def require_other(path: Path, read: Iterable[Path], option: str = "-o") -> None:
    """Raise a :class:`UserError` if an output would overwrite one of the files it is made from.

    Args:
        path: of the output.
        read: the inputs.
        option: by which the output was named.
    """
    if path.exists() and any(file.exists() and path.samefile(file) for file in read):
        raise UserError(
            f"could not write {path}: it is one of the inputs, and would be lost",
            fix=f"choose another file with {option}",
        )


def put_in_place(finished: Path, path: Path) -> None:
    """Flush a finished file to disk, and rename it to ``path`` on the same file system."""
    _flush(finished)
    os.replace(finished, path)


def _flush(path: Path) -> None:
    mode = os.O_RDWR if os.name == "nt" else os.O_RDONLY  # Windows flushes only open writers
    descriptor = os.open(path, mode)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def put_folder(finished: Path, path: Path) -> None:
    """Rename a finished folder to ``path``, which does not exist or is empty.

    Raises:
        UserError: another process made it meanwhile.
    """
    try:
        os.replace(finished, path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        raise UserError(
            f"{path} was made by another process meanwhile",
            fix="use it, or remove it and run the same command again",
        ) from error


def require_space(folder: Path, needed_bytes: int = FULL_BYTES) -> None:
    """Raise a :class:`DiskError` if the disk of ``folder`` has less free space."""
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise DiskError(
            f"the disk of {folder} is full: {free / 2**20:.0f} MiB are free",
            fix="free some space, then run the same command again",
        )


def remove_leftovers(folder: str | Path) -> None:
    """Delete temporary files of killed writers; no other process may write to ``folder`` now."""
    for path in Path(folder).glob(".*.tmp"):
        if path.is_file():
            path.unlink()


def write_text(path: str | Path, text: str) -> None:
    """Write a text in UTF-8 atomically."""
    content = text.encode()
    write_atomically(path, lambda temporary: temporary.write_bytes(content), len(content))


def write_json(path: str | Path, content: Any) -> None:
    """Write ``content`` as indented JSON atomically."""
    text = json.dumps(content, indent=4, sort_keys=False)
    write_text(path, text + "\n")


def write_csv(path: str | Path, rows: Iterable[Sequence[Any]]) -> None:
    """Write a table as CSV atomically; its first row names the columns.

    The names are in quotes, which promises an empty line at the end: a table that is cut anywhere
    lacks it. Programs that read CSV skip both.
    """
    text = io.StringIO()
    columns, *others = ([_mark_text(cell) for cell in row] for row in rows)
    csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL).writerow(columns)
    csv.writer(text, lineterminator="\n").writerows(others)
    write_text(path, text.getvalue() + "\n")


def _mark_text(cell: Any) -> Any:
    """Return a cell with an apostrophe if a spreadsheet would compute it as a formula."""
    if not isinstance(cell, str) or not FORMULA.match(cell):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def _unmark_text(cell: str) -> str:
    """Return a cell without the apostrophe of :func:`_mark_text`."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


def parse_csv(text: str) -> list[tuple[int, list[str]]]:
    """Return the rows of a table, each with the number of its last line; empty lines are skipped.

    >>> parse_csv("case,dice\\na,0.5\\n")
    [(1, ['case', 'dice']), (2, ['a', '0.5'])]

    Args:
        text: of :func:`write_csv`, of a spreadsheet, or of an earlier version, without the empty
            line at the end.

    Raises:
        ValueError, csv.Error: the end is missing, or the text is no CSV.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows = [(reader.line_num, [*map(_unmark_text, row)]) for row in reader if row]
    end = "\n\n" if text.startswith('"') else "\n"
    if rows and not text.replace("\r\n", "\n").endswith(end):
        raise ValueError(f"its end is missing, after line {rows[-1][0]}")
    return rows


def read_csv(path: str | Path) -> tuple[list[str], list[dict[str, str]]]:
    """Read a file that :func:`write_csv` wrote.

    Returns:
        The names of the columns; and the rows, each as column -> value.

    Raises:
        UserError: the file cannot be read or is incomplete.
    """
    try:
        (_, columns), *rows = parse_csv(Path(path).read_bytes().decode()) or [(1, [])]
        if not columns:
            raise ValueError("it is empty")
        for number, row in rows:
            if len(row) != len(columns):
                raise ValueError(f"line {number} has {len(row)} values, not {len(columns)}")
    except (OSError, ValueError, csv.Error) as error:
        what = f"{path} must be a complete table of comma-separated values in UTF-8"
        raise UserError(f"{what} ({error})", fix=f"remove it, and {MAKE_AGAIN}") from error
    return columns, [dict(zip(columns, row, strict=True)) for _, row in rows]


def write_npz(path: str | Path, **arrays: np.ndarray) -> None:
    """Write compressed arrays atomically."""

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:  # numpy would add an ending to a name
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    write_atomically(path, write)


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: the file does not exist, cannot be read or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(
            f"{path} does not exist", fix=f"correct the path, or {MAKE_AGAIN}"
        ) from error
    except OSError as error:
        fix = "give a file, and permission to read it"
        raise UserError(f"{path} cannot be read: {error}", fix=fix) from error
    except (ValueError, RecursionError) as error:  # integers of 5000 digits, nested lists
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        fix = f"correct it, or remove it and {MAKE_AGAIN}"
        raise UserError(f"{path} is not valid JSON: {reason}", fix=fix) from error


def optional_json(path: str | Path) -> dict[str, Any]:
    """Read the object in a JSON file; return {} if there is no such file.

    Raises:
        UserError: the file cannot be read, or holds no JSON object.
    """
    if not Path(path).is_file():
        return {}
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(
            f"{path} must hold a JSON object, got {json.dumps(content):.80}",
            fix=f"correct it, or remove it and {MAKE_AGAIN}",
        )
    return content


def read_names(path: str | Path, key: str | None = None) -> list[str]:
    """Read a JSON list of names, such as cases.

    Args:
        key: of the list, if the file holds an object.

    Raises:
        UserError: the file cannot be read, or holds something else.
    """
    content = read_json(path) if key is None else optional_json(path).get(key)
    if isinstance(content, list) and all(isinstance(name, str) for name in content):
        return content
    place = "" if key is None else f" as {key!r}"
    raise UserError(
        f"{path} must hold a list of names{place}, got {json.dumps(content):.80}",
        fix=f"correct it, or remove it and {MAKE_AGAIN}",
    )


def sha256_of_file(path: str | Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_of_json(content: Mapping[str, Any]) -> str:
    """Return the hexadecimal SHA-256 of JSON content, independent of the order of its keys.

    >>> sha256_of_json({"a": 1, "b": 2}) == sha256_of_json({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def sha256_of_version(path: str | Path) -> str:
    """Return the SHA-256 of a large file, computed once per process for each version of the file.

    A version is identified by path, inode, size, and the times of modification and change.
    """
    status = os.stat(path)
    times = status.st_mtime_ns, status.st_ctime_ns
    return _hash_version(os.path.abspath(path), status.st_ino, status.st_size, times)


@cache
def _hash_version(path: str, inode: int, size: int, times: tuple[int, int]) -> str:
    return sha256_of_file(path)
