"""A disk that gets full, real processes on it, and the files they leave."""

from __future__ import annotations

import json
import os
import pickle
import resource
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
from PIL import Image

from semi_nnunet.cli.main import main
from semi_nnunet.training import checkpoints
from semi_nnunet.util.errors import install_error_hook
from semi_nnunet.util.files import read_csv
from semi_nnunet.verify.file_bytes import scan_raw
from tests.conftest import no_processes
from tests.forking import context, forked
from tests.mounting import mount_small

SIZE = "64m"
FILLER = ".filler"
Work = tuple[str, ...] | Callable[[], object]  # a command, or a function


class Disk:
    """A folder whose space, or the size of whose files, can be limited.

    Args:
        folder: is made.
        is_small: whether it is a small file system of its own; else files have a limit.
    """

    def __init__(self, folder: Path, is_small: bool):
        self.folder, self.is_small = folder, is_small
        folder.mkdir()
        if is_small:
            mount_small(folder, SIZE)

    def remove(self) -> None:
        while os.path.ismount(self.folder):
            subprocess.run(["umount", self.folder], check=True)

    def fill(self, room: int | None) -> None:
        """Leave so many free bytes; ``None``: all."""
        filler = self.folder / FILLER
        filler.unlink(missing_ok=True)
        if room is not None:
            state = os.statvfs(self.folder)
            with filler.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, state.f_bavail * state.f_frsize - room)

    def run(
        self,
        work: Work,
        room: int | None = None,
        at: Mapping[str, Callable[[], object]] | None = None,
    ) -> tuple[int | None, str]:
        """Do something in a process of its own.

        Args:
            work: a command of ours, or nnUNetv2_train, or a function.
            room: bytes that are free, or that a file may have; None: enough.
            at: words in a line that it says -> what happens then, once.

        Returns:
            The exit code, and what was said.
        """
        if self.is_small:
            self.fill(room)
        events = dict(at or {})
        heard, saying = context.Pipe(duplex=False)
        process = forked(speak, saying, work, None if self.is_small else room)
        saying.close()
        said = []
        with os.fdopen(os.dup(heard.fileno()), encoding="utf-8", errors="replace") as pipe:
            for line in pipe:
                said.append(line)
                for words in [words for words in events if words in line]:
                    events.pop(words)()
        process.join(60)
        process.kill()
        return process.exitcode, "".join(said)

    def make_read_only(self) -> None:
        """Make the folder read-only, also for root and for files open for writing."""
        over = [["--bind", self.folder, self.folder], ["-o", "remount,ro,bind", self.folder]]
        for words in over:
            subprocess.run(["mount", *words], check=True)

    def make_writable(self) -> None:
        subprocess.run(["umount", self.folder], check=True)

    def files(self) -> dict[str, bytes]:
        """Return final name -> content of every file."""
        named = {str(path.relative_to(self.folder)): path for path in self.folder.rglob("*")}
        return {name: named[name].read_bytes() for name in named if is_final(named[name], name)}

    def left_aside(self) -> list[Path]:
        """Return the temporary files of a writer."""
        return [path for path in self.folder.rglob("*") if path.name.endswith((".tmp", ".before"))]


def is_final(path: Path, name: str) -> bool:
    hidden = any(part.startswith(".") or part.endswith(".tmp") for part in Path(name).parts)
    return path.is_file() and not hidden


def speak(saying: Any, work: Work, limit: int | None) -> None:
    """Work with the output in a pipe, and end the process as Python would."""
    for number in (1, 2):
        os.dup2(saying.fileno(), number)
    saying.close()
    sys.stdout, sys.stderr = (os.fdopen(number, "w", 1, encoding="utf-8") for number in (1, 2))
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    code: Any = 0
    try:
        with no_processes():
            code = called(work)
    except SystemExit as end:
        code = end.code
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(int(code or 0))


def called(work: Work) -> int:
    """Return the exit code."""
    if not isinstance(work, tuple):
        install_error_hook()
        work()
    elif work[0] != "nnUNetv2_train":
        return main(work)
    else:
        from nnunetv2.run.run_training import run_training_entry
        from nnunetv2.training.nnUNetTrainer import nnUNetTrainer

        nnUNetTrainer.sleep = lambda seconds: None  # before each new try to write the log
        sys.argv = list(work)
        run_training_entry()
    return 0


# ---- is a file whole? ----


def whole_arrays(path: Path) -> None:
    with np.load(path) as arrays:
        for name in arrays:
            arrays[name]


def whole_picture(path: Path) -> None:
    with Image.open(path) as picture:
        picture.load()


def whole_page(path: Path) -> None:
    assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")


LOOK: dict[str, Callable[[Path], Any]] = {
    ".json": lambda path: json.loads(path.read_bytes()),
    ".pth": checkpoints.read_of_any_trainer,
    ".nii.gz": lambda path: scan_raw(str(path)),
    ".png": whole_picture,
    ".csv": read_csv,
    ".npz": whole_arrays,
    ".b2nd": lambda path: blosc2.open(str(path), mode="r")[:],
    ".pkl": lambda path: pickle.loads(path.read_bytes()),
    ".zip": lambda path: zipfile.ZipFile(path).testzip(),
    ".html": whole_page,
}


def torn(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the files that cannot be read completely, and why."""
    found = {}
    for name in names:
        ending = next((one for one in LOOK if name.endswith(one)), None)
        if ending is not None:
            try:
                LOOK[ending](folder / name)
            except Exception as error:
                found[name] = f"{type(error).__name__}: {error}"
    return found
